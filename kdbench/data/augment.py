"""Views: render a batch of stored images as a network sees it, from random choices drawn before the epoch.

B = batch, N = samples of a set, H x W = image size in pixels. Drawing and rendering are separate: ``draw``
makes all choices of one epoch from one generator, and ``render`` is a pure function of a row's image and a
row's draws, so that a sample's view depends neither on its batch mates nor on what else is trained, and can
be rendered again at any time.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from kdbench.data.randaugment import OPS, randaugment
from kdbench.suites.schema import View

Draws = dict[str, Tensor]
TRIES = 10  # shapes that a resized crop tries until one fits, as torchvision's


def draw(view: View, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
    """All random choices of one epoch for ``count`` samples of ``size`` (H, W), from a CPU generator.

    Only what the view uses: ``part`` float32 [N, 2 * TRIES + 2], in 0..1, the choices of `part_of`;
    ``offset`` int64 [N, 2], top and left corner of the crop in the padded image;
    ``flip`` bool [N]; ``op`` int64 [N, ops], positions in ``OPS``, and ``negative`` bool [N, ops]; ``square``
    float32 [N, 3], centre y, centre x and side in pixels. Index each by the batch's sample numbers before
    rendering.
    """
    height, width = size
    draws: Draws = {}
    if view.scale:
        draws["part"] = torch.rand(count, 2 * TRIES + 2, generator=generator)
    if view.pad:
        draws["offset"] = torch.randint(2 * view.pad + 1, (count, 2), generator=generator)
    if view.flip:
        draws["flip"] = torch.randint(2, (count,), generator=generator).bool()
    if view.ops:
        draws["op"] = torch.randint(len(OPS), (count, view.ops), generator=generator)
        draws["negative"] = torch.randint(2, (count, view.ops), generator=generator).bool()
    if view.cutout:
        scale = torch.tensor([height, width, view.cutout * min(size)])
        draws["square"] = torch.rand(count, 3, generator=generator) * scale
    return draws


def render(view: View, images: Tensor, draws: Draws) -> Tensor:
    """``images`` (uint8 [B, H, W, 3]) as the view shows them: float32 [B, 3, H, W] in 0..1.

    Memory format channels_last. ``draws`` holds one row per image; it may stay on the CPU whatever the images'
    device (``part``, ``op`` and ``negative`` must: what is read from them on a GPU would wait for it).
    """
    return plain(render_bytes(view, images, draws))


def render_bytes(view: View, images: Tensor, draws: Draws) -> Tensor:
    """As `render`, before the conversion: uint8 [B, H, W, 3]."""
    if view.scale:
        images = _resized(view, images, draws["part"])
    return augment(view, images, draws)


def augment(view: View, images: Tensor, draws: Draws) -> Tensor:
    """What comes after the resized crop: ``images`` uint8 [B, H, W, 3] -> the same shape and type."""
    if view.pad or view.flip:
        images = _crop_flip(images, view.pad, draws.get("offset"), draws.get("flip"))
    if view.ops:
        images = randaugment(images, draws["op"], draws["negative"], view.magnitude)
    if view.cutout:
        images = images * _outside(draws["square"], images)[..., None]
    return torch.rot90(images, view.turn, (1, 2)).contiguous() if view.turn else images


def part_of(view: View, choices: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the resized crop's part of an image, from one row of ``part``.

    The first of ten shapes that fits into the image; where none does, the largest middle part whose width to
    height is in ``ratio``.
    """
    assert view.scale is not None
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    for share, shape in zip(choices[:TRIES], choices[TRIES:-2], strict=True):
        area = height * width * (view.scale[0] + share * (view.scale[1] - view.scale[0]))
        ratio = math.exp(low + shape * (high - low))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            down, right = choices[-2:]
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    w = min(width, round(height * view.ratio[1]))
    h = min(height, round(width / view.ratio[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def plain(images: Tensor) -> Tensor:
    """The images themselves, for evaluation; shapes and values as ``render``'s."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _resized(view: View, images: Tensor, parts: Tensor) -> Tensor:
    """Image by image, for the parts differ in size: uint8 [B, H, W, 3]."""
    height, width = images.shape[1:3]
    boxes = [part_of(view, row, height, width) for row in parts.tolist()]
    channels_first = images.permute(0, 3, 1, 2)
    return (
        torch.stack(
            [
                TF.resized_crop(image, *box, [height, width], antialias=True)
                for image, box in zip(channels_first, boxes, strict=True)
            ]
        )
        .permute(0, 2, 3, 1)
        .contiguous()
    )


def _crop_flip(images: Tensor, pad: int, offset: Tensor | None, flip: Tensor | None) -> Tensor:
    """Zero-pad, crop at ``offset``, mirror: one gather of whole pixels."""
    count, height, width, channels = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, -1)  # [B, H], rows of the padded image
    columns = torch.arange(width, device=device).expand(count, -1)  # [B, W]
    if flip is not None:
        columns = torch.where(flip.to(device, non_blocking=True)[:, None], width - 1 - columns, columns)
    if offset is not None:
        offset = offset.to(device, non_blocking=True)
        rows, columns = rows + offset[:, :1], columns + offset[:, 1:]
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    rows = rows + torch.arange(count, device=device)[:, None] * padded.shape[1]
    # [B, H, W], positions in the flat padded batch
    pixels = rows[:, :, None] * padded.shape[2] + columns[:, None, :]
    return padded.view(-1, channels).index_select(0, pixels.flatten()).view(images.shape)


def _outside(square: Tensor, images: Tensor) -> Tensor:
    """1 outside and 0 inside each image's square (centre y, centre x, side): uint8 [B, H, W]."""
    height, width = images.shape[1:3]
    y, x, side = square.to(images.device, non_blocking=True)[:, :, None].unbind(1)  # [B, 1] each
    inside_y = (torch.arange(height, device=images.device) + 0.5 - y).abs() < side / 2  # [B, H]
    inside_x = (torch.arange(width, device=images.device) + 0.5 - x).abs() < side / 2  # [B, W]
    return (~(inside_y[:, :, None] & inside_x[:, None, :])).to(images.dtype)
