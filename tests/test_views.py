"""Views: each against a loop over single images, or against torchvision's own code."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from kdbench.data import View, draw, plain, render
from kdbench.data import randaugment as randaugment_module
from kdbench.data.randaugment import BINS, OPS, randaugment
from kdbench.errors import KdbenchError

WEAK = View(pad=4, flip=True)
STRONG = View(pad=4, flip=True, ops=2, magnitude=10, cutout=0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int = 32, width: int = 32) -> Tensor:
    """Noise, and among it the kinds that divide by zero: flat, few values, dark, one empty channel."""
    images = torch.randint(256, (count, height, width, 3), dtype=torch.uint8, generator=seeded(9))
    if count >= 8:
        images[3] = 7
        images[4] = images[4] // 64 * 4 + 60
        images[5] = images[5] % 2 * 200
        images[6, ..., 1] = 0
        images[7] = images[7] // 9
    return images


def rows(draws: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: values[index] for name, values in draws.items()}


def to_bytes(pixels: Tensor) -> Tensor:
    """Back from what ``render`` returns to uint8 [B, H, W, 3]."""
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def test_no_augmentation_is_the_image_itself():
    images = pictures(8)
    want = images.permute(0, 3, 1, 2).float() / 255
    assert draw(View(), 8, (32, 32), seeded()) == {}
    for pixels in (plain(images), render(View(), images, {})):
        assert torch.equal(pixels, want)
        assert pixels.dtype == torch.float32
        assert pixels.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (12, 20)])
@pytest.mark.parametrize("view", [View(pad=4), View(flip=True), WEAK, View(pad=1, flip=True)])
def test_crop_and_flip_equal_a_loop_over_images(view, size):
    images = pictures(40, *size)
    draws = draw(view, 40, size, seeded(1))
    want = []
    for i, image in enumerate(images.permute(0, 3, 1, 2).float() / 255):
        top, left = draws["offset"][i].tolist() if view.pad else (0, 0)
        image = F.pad(image, [view.pad] * 4)[:, top : top + size[0], left : left + size[1]]
        want.append(image.flip(2) if view.flip and draws["flip"][i] else image)
    pixels = render(view, images, draws)
    assert torch.equal(pixels, torch.stack(want))
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_weak_draws_cover_all_outcomes_evenly():
    count = 162 * 200
    draws = draw(WEAK, count, (32, 32), seeded(2))
    outcome = (draws["offset"][:, 0] * 9 + draws["offset"][:, 1]) * 2 + draws["flip"]
    counts = outcome.bincount(minlength=162).float()
    assert len(counts) == 162
    # Chi square of 161 degrees of freedom: 161 +- 18.
    assert ((counts - 200) ** 2 / 200).sum() < 161 + 5 * 18


@pytest.mark.parametrize("magnitude", [0, 1, 10, 17, 30])
@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_each_operation_equals_torchvision_on_single_images(size, magnitude):
    images = pictures(12, *size)
    space = RandAugment()._augmentation_space(BINS, size)
    assert tuple(space) == OPS
    for op, (name, (magnitudes, signed)) in enumerate(space.items()):
        for negative in (False, True):
            amount = magnitudes[magnitude].item() if magnitudes.ndim else 0.0
            amount = -amount if signed and negative else amount
            want = [
                _apply_op(image, name, amount, InterpolationMode.NEAREST, None)
                for image in images.permute(0, 3, 1, 2)
            ]
            code = torch.full((12, 1), op), torch.full((12, 1), negative)
            made = randaugment(images, *code, magnitude).permute(0, 3, 1, 2)
            assert torch.equal(made, torch.stack(want)), (name, negative)


def test_strong_view_equals_torchvision_step_by_step():
    """Two operations in the drawn order on top of crop and flip, then a square by a loop over pixels."""
    count, size = 64, (16, 16)
    images = pictures(count, *size)
    draws = draw(STRONG, count, size, seeded(3))
    weak = to_bytes(render(WEAK, images, rows(draws, torch.arange(count)))).permute(0, 3, 1, 2)
    space = list(RandAugment()._augmentation_space(BINS, size).items())
    made = to_bytes(render(STRONG, images, draws)).permute(0, 3, 1, 2)
    for i, image in enumerate(weak):
        for op, negative in zip(draws["op"][i].tolist(), draws["negative"][i].tolist(), strict=True):
            name, (magnitudes, signed) = space[op]
            amount = magnitudes[10].item() if magnitudes.ndim else 0.0
            amount = -amount if signed and negative else amount
            image = _apply_op(image, name, amount, InterpolationMode.NEAREST, None)
        y, x, side = draws["square"][i].tolist()
        for row in range(size[0]):
            for column in range(size[1]):
                if abs(row + 0.5 - y) < side / 2 and abs(column + 0.5 - x) < side / 2:
                    image[:, row, column] = 0
        assert torch.equal(made[i], image), i


def test_operations_and_signs_are_drawn_evenly():
    count = 14_000
    draws = draw(STRONG, count, (32, 32), seeded(4))
    assert draws["op"].shape == draws["negative"].shape == (count, 2)
    for slot in range(2):
        counts = draws["op"][:, slot].bincount(minlength=14).float()
        assert ((counts - 1000) ** 2 / 1000).sum() < 13 + 5 * 5.1  # chi square of 13 degrees of freedom
        for op in range(14):  # the sign does not depend on the operation
            negative = draws["negative"][:, slot][draws["op"][:, slot] == op].float().mean()
            assert abs(negative - 0.5) < 5 * 0.5 / 1000**0.5
    pairs = (draws["op"][:, 0] * 14 + draws["op"][:, 1]).bincount(minlength=196).float()
    mean = count / 196
    assert ((pairs - mean) ** 2 / mean).sum() < 195 + 5 * 19.7  # the two are independent


def test_cutout_side_centre_and_area():
    count, height, width = 20_000, 32, 48
    view = View(cutout=0.5)
    draws = draw(view, count, (height, width), seeded(5))
    y, x, side = draws["square"].unbind(1)
    for values, largest in ((y, height), (x, width), (side, 0.5 * height)):
        assert values.min() >= 0
        assert values.max() <= largest
        for share in (0.1, 0.5, 0.9):
            assert abs((values < share * largest).float().mean() - share) < 0.02
    count = 2000
    white = torch.full((count, height, width, 3), 255, dtype=torch.uint8)
    pixels = render(view, white, rows(draws, torch.arange(count)))
    assert set(pixels.unique().tolist()) == {0.0, 1.0}
    black = (1 - pixels[:, 0]).sum((1, 2))
    clipped = [
        (torch.minimum(c + side / 2, torch.tensor(n)) - torch.maximum(c - side / 2, torch.tensor(0))).clamp(
            min=0
        )
        for c, n in ((y, height), (x, width))
    ]
    area = (clipped[0] * clipped[1])[:count]
    assert (black - area).abs().max() < 2 * 16 + 1  # a pixel more or less along each axis
    assert abs((black.mean() - area.mean()) / area.mean()) < 0.02


@pytest.mark.parametrize("view", [WEAK, STRONG])
def test_same_generator_same_draws_other_seed_other_draws(view):
    one, same, other = (draw(view, 50, (32, 32), seeded(s)) for s in (6, 6, 7))
    images = pictures(50)
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert torch.equal(render(view, images, one), render(view, images, same))
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_a_row_alone_equals_the_row_in_a_batch():
    images = pictures(96)
    draws = draw(STRONG, 96, (32, 32), seeded(8))
    batch = render(STRONG, images, draws)
    for i in range(96):
        index = torch.tensor([i])
        assert torch.equal(render(STRONG, images[index], rows(draws, index)), batch[i : i + 1]), i
    shuffled = torch.randperm(96, generator=seeded())
    assert torch.equal(render(STRONG, images[shuffled], rows(draws, shuffled)), batch[shuffled])


def test_render_changes_neither_images_nor_draws():
    images = pictures(64)
    draws = draw(STRONG, 64, (32, 32), seeded(10))
    before = {name: values.clone() for name, values in draws.items()} | {"images": images.clone()}
    render(STRONG, images, draws)
    assert all(torch.equal(before[name], values) for name, values in (draws | {"images": images}).items())


def test_autocast_changes_nothing():
    images = pictures(64)
    draws = draw(STRONG, 64, (32, 32), seeded(10))
    want = render(STRONG, images, draws)
    randaugment_module._position_table.cache_clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(render(STRONG, images, draws), want)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"pad": -1}, "pad"), ({"ops": 2, "magnitude": 31}, "magnitude"), ({"cutout": 1.5}, "cutout")],
)
def test_impossible_views_are_refused(settings, word):
    with pytest.raises(KdbenchError, match=word):
        View(**settings)


class CountCalls(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def test_no_work_per_sample_in_python():
    counts = []
    for count in (512, 4096):
        images = pictures(count, 8, 8)
        draws = draw(STRONG, count, (8, 8), seeded(11))
        render(STRONG, images, draws)  # the first call makes the tables
        with CountCalls() as counter:
            render(STRONG, images, draws)
        counts.append(counter.calls)
    assert counts[0] == counts[1] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_renders_the_same_without_waiting():
    """Same bytes as the CPU (one level apart at most where a blur rounds), and no host sync."""
    images = pictures(256)
    there = images.cuda()
    for view in (WEAK, View(cutout=0.5), *(View(ops=1, magnitude=m) for m in (0, 10, 30))):
        draws = draw(view, 256, (32, 32), seeded(12))
        render(view, there, draws)  # the first call makes the tables
        torch.cuda.set_sync_debug_mode("error")
        try:
            pixels = render(view, there, draws)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert (pixels.cpu() - render(view, images, draws)).abs().max() < 1.5 / 255
