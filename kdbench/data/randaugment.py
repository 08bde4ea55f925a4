"""RandAugment on a whole batch (Cubuk et al., CVPR Workshops 2020, arXiv:1909.13719).

The operations, strengths and signs are those of ``torchvision.transforms.RandAugment`` with 31 magnitude
bins, nearest-pixel interpolation and black fill; each image comes out as torchvision's own code would make
it, bit for bit.

The magnitude is fixed and only the sign varies. So an operation that moves pixels is a table of positions and
one that maps each value by itself is a table of 256 values; torchvision fills both tables once, and one
lookup serves all images of all such operations. What depends on an image's content is called once for each
operation and sign.

B = batch, n = images of one group, H x W = image size; an operation with its sign is a *code*,
2 * op + negative.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

BINS = 31
MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
TONES = ("Brightness", "Posterize", "Solarize")
BLENDS = {"Color": TF.adjust_saturation, "Contrast": TF.adjust_contrast, "Sharpness": TF.adjust_sharpness}
OPS = ("Identity", *MOVES, "Brightness", *BLENDS, "Posterize", "Solarize", "AutoContrast", "Equalize")

# What a group does: (images uint8 [n, H, W, 3], codes [n] on the CPU, magnitude) -> images, all changed.
Change = Callable[[Tensor, Tensor, int], Tensor]


def randaugment(images: Tensor, op: Tensor, negative: Tensor, magnitude: int) -> Tensor:
    """Apply to each image its operations, one after the other.

    ``images`` uint8 [B, H, W, 3] on any device; ``op`` int64 [B, K], positions in ``OPS``, and ``negative``
    bool [B, K], signs (without meaning for the unsigned operations), both on the CPU; ``magnitude`` in 0..30.
    """
    # Autocast would compute torchvision's grids and blurs, and so the cached tables, in bf16.
    with torch.autocast("cpu", enabled=False), torch.autocast(images.device.type, enabled=False):
        for code in (2 * op + negative).unbind(1):
            images = _step(images, code, magnitude)
    return images


def strength(name: str, magnitude: int, size: tuple[int, int]) -> float:
    """Magnitude 0..30 of an operation in its own unit; ``size`` is (H, W)."""
    match name:
        case "ShearX" | "ShearY":
            weakest, strongest = 0.0, 0.3  # tangent of the angle
        case "TranslateX":
            weakest, strongest = 0.0, 150.0 / 331.0 * size[1]  # pixels
        case "TranslateY":
            weakest, strongest = 0.0, 150.0 / 331.0 * size[0]
        case "Rotate":
            weakest, strongest = 0.0, 30.0  # degrees
        case "Posterize":
            return float(8 - round(magnitude / ((BINS - 1) / 4)))  # bits kept
        case "Solarize":
            weakest, strongest = 255.0, 0.0  # values from here on are inverted
        case _:
            weakest, strongest = 0.0, 0.9  # added to or taken from a factor of 1
    return torch.linspace(weakest, strongest, BINS)[magnitude].item()


def _step(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    """One operation for each image: sort by group (on the CPU), change group by group, undo the sorting."""
    group = _GROUP_OF_CODE[code]
    order = group.argsort()
    sizes = group.bincount(minlength=len(_GROUPS)).tolist()
    batches = images.index_select(0, order.to(images.device, non_blocking=True)).split(sizes)
    changed = [
        change(batch, codes, magnitude) if len(codes) else batch
        for (_, change), batch, codes in zip(_GROUPS, batches, code[order].split(sizes), strict=True)
    ]
    return torch.cat(changed).index_select(0, order.argsort().to(images.device, non_blocking=True))


def _same(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    return images


def _move(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    """Shear, translate or rotate: take each pixel from its table's position."""
    count, height, width, channels = images.shape
    positions = _position_table(magnitude, (height, width), images.device)
    positions = positions.index_select(0, code.to(images.device, non_blocking=True))  # [n, H * W]
    black_first = F.pad(images.view(count, -1, channels), (0, 0, 1, 0))  # [n, 1 + H * W, 3]
    starts = torch.arange(count, device=images.device)[:, None] * black_first.shape[1]
    return black_first.view(-1, channels).index_select(0, (starts + positions).flatten()).view(images.shape)


@lru_cache
def _position_table(magnitude: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """[codes, H * W]: where each pixel comes from, counted from 1; 0: outside. Only MOVES are filled."""
    height, width = size
    image = torch.arange(1.0, height * width + 1).view(1, height, width)
    table = torch.zeros(2 * len(OPS), height * width, dtype=torch.int64)
    for name in MOVES:
        for negative in (False, True):
            amount = _signed(strength(name, magnitude, size), negative)
            table[2 * OPS.index(name) + negative] = _moved(image, name, amount).flatten().long()
    return table.to(device)


def _moved(image: Tensor, name: str, amount: float) -> Tensor:
    if name == "Rotate":
        return TF.rotate(image, amount)
    angle = math.degrees(math.atan(amount))
    shear = {"ShearX": [angle, 0.0], "ShearY": [0.0, angle]}.get(name, [0.0, 0.0])
    shift = {"TranslateX": [int(amount), 0], "TranslateY": [0, int(amount)]}.get(name, [0, 0])
    # A shear keeps the corner in its place, not the middle.
    centre = [0, 0] if name.startswith("Shear") else None
    return TF.affine(image, angle=0.0, translate=shift, scale=1.0, shear=shear, center=centre)


def _tone(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    """Brightness, posterize, solarize: look each value up in its code's table."""
    values = _value_table(magnitude, images.device)
    starts = code.to(images.device, non_blocking=True).view(-1, 1, 1, 1) * 256
    return values.index_select(0, (starts + images).flatten()).view(images.shape)


@lru_cache
def _value_table(magnitude: int, device: torch.device) -> Tensor:
    """[codes * 256] uint8: what each value becomes. Only TONES are filled."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    table = torch.zeros(2 * len(OPS), 256, dtype=torch.uint8)
    for name in TONES:
        for negative in (False, True):
            amount = strength(name, magnitude, (1, 1))
            match name:
                case "Brightness":
                    row = TF.adjust_brightness(ramp, 1.0 + _signed(amount, negative))
                case "Posterize":
                    row = TF.posterize(ramp, int(amount))
                case _:
                    row = TF.solarize(ramp, amount)
            table[2 * OPS.index(name) + negative] = row.flatten()
    return table.flatten().to(device)


def _blend(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    """Colour, contrast or sharpness, more or less; all codes of the group are equal."""
    op, negative = divmod(int(code[0]), 2)
    factor = 1.0 + _signed(strength(OPS[op], magnitude, (1, 1)), bool(negative))
    return BLENDS[OPS[op]](images.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


def _autocontrast(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    return TF.autocontrast(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _equalize(images: Tensor, code: Tensor, magnitude: int) -> Tensor:
    """Flatten each channel's histogram by torchvision's integer arithmetic, for all images at once."""
    values = images.permute(0, 3, 1, 2).flatten(2).long()  # [n, 3, H * W]
    histogram = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values))
    brightest = histogram.gather(2, values.amax(2, keepdim=True))  # [n, 3, 1], pixels of the highest value
    step = (values.shape[2] - brightest) // 255
    below = F.pad(histogram.cumsum(2), (1, 0))[..., :-1]  # pixels darker than each value
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    equal = torch.where(step == 0, values, table.gather(2, values))
    return equal.to(torch.uint8).view(images.permute(0, 3, 1, 2).shape).permute(0, 2, 3, 1)


def _signed(amount: float, negative: bool) -> float:
    return -amount if negative else amount


def _codes(*names: str) -> list[int]:
    return [2 * OPS.index(name) + negative for name in names for negative in (0, 1)]


_GROUPS: list[tuple[list[int], Change]] = [
    (_codes("Identity"), _same),
    (_codes(*MOVES), _move),
    (_codes(*TONES), _tone),
    *(([code], _blend) for code in _codes(*BLENDS)),
    (_codes("AutoContrast"), _autocontrast),
    (_codes("Equalize"), _equalize),
]
_GROUP_OF_CODE = torch.tensor(
    [next(g for g, (codes, _) in enumerate(_GROUPS) if code in codes) for code in range(2 * len(OPS))]
)
