"""Views: each against a loop over single images, or against torchvision's own code."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import resized_crop

from kdbench.data import randaugment as randaugment_module
from kdbench.data.augment import draw, part_of, plain, render
from kdbench.data.randaugment import BINS, OPS, randaugment
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View

WEAK = View(pad=4, flip=True)
STRONG = View(pad=4, flip=True, ops=2, magnitude=10, cutout=0.5)
RESIZED = View(scale=(0.08, 1.0), flip=True)


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


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turn_is_of_what_the_other_steps_made(turn):
    """Counter-clockwise, and laid out as any other image."""
    images, view = pictures(8, 12, 12), dataclasses.replace(STRONG, turn=turn)
    draws = draw(view, 8, (12, 12), seeded(3))
    upright = render(STRONG, images, draw(STRONG, 8, (12, 12), seeded(3)))
    pixels = render(view, images, draws)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    for made, before in zip(pixels.tolist(), upright.tolist(), strict=True):
        for channel, rows_before in zip(made, before, strict=True):
            for _ in range(turn):
                rows_before = [list(column) for column in zip(*rows_before, strict=True)][::-1]
            assert channel == rows_before


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


@pytest.mark.parametrize("size", [(40, 40), (30, 70), (12, 200), (200, 12), (1, 9)])
def test_parts_are_distributed_as_torchvisions(size):
    """Top, left, height, width, and whether they fall back to the middle: 1,000 of each, on shapes that fit and not."""
    torch.manual_seed(0)
    picture = torch.empty(3, *size)
    theirs = [RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1000)]
    draws = draw(RESIZED, 1000, (224, 224), seeded(1))["part"]
    ours = [part_of(RESIZED, row, *size) for row in draws.tolist()]
    for top, left, height, width in ours:
        assert 0 <= top <= size[0] - height < size[0]
        assert 0 <= left <= size[1] - width < size[1]
    for place in range(4):
        left, right = ([part[place] for part in parts] for parts in (ours, theirs))
        assert ks_2samp(left, right, method="asymp").pvalue > 1e-3, place


@pytest.mark.parametrize("size", [(10, 99), (99, 10), (7, 1), (20, 30)])
def test_where_no_part_fits_it_is_torchvisions_middle(size):
    """The whole area at a ratio of 3/4 to 4/3 fits into none of these."""
    theirs = RandomResizedCrop.get_params(torch.empty(3, *size), [1.0, 1.0], [3 / 4, 4 / 3])
    assert part_of(View(scale=(1.0, 1.0)), [0.5] * 22, *size) == theirs


def test_a_part_by_hand():
    """A quarter of 20 x 40 at ratio 1 is 14 x 14 (of 14.14); 7 and 27 places: the middle of them are 3 and 13."""
    view = View(scale=(0.25, 0.25), ratio=(1.0, 1.0))
    assert part_of(view, [0.9] * 20 + [0.5, 0.5], 20, 40) == (3, 13, 14, 14)
    wide = View(
        scale=(1.0, 1.0), ratio=(2.0, 8.0)
    )  # log-uniform: 0 is 2, 1/2 is 4: 14 x 57 does not fit, 20 x 40 does
    assert part_of(wide, [0.1] * 10 + [0.5] * 4 + [0.0] * 6 + [0.7, 0.2], 20, 40) == (0, 0, 20, 40)


@pytest.mark.parametrize("size", [(32, 32), (12, 20)])
def test_a_resized_crop_equals_torchvisions_on_single_images(size):
    images = pictures(24, *size)
    draws = draw(RESIZED, 24, size, seeded(2))
    want = []
    for i, image in enumerate(images.permute(0, 3, 1, 2)):
        part = part_of(RESIZED, draws["part"][i].tolist(), *size)
        image = resized_crop(image, *part, list(size), antialias=True)
        want.append(image.flip(2) if draws["flip"][i] else image)
    pixels = render(RESIZED, images, draws)
    assert torch.equal(pixels, torch.stack(want).float() / 255)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(pixels, render(View(flip=True), images, draws))


def test_a_resized_crop_is_in_the_identity_its_absence_is_not():
    known = {"pad": 4, "flip": True, "ops": 0, "magnitude": 0, "cutout": 0.0}
    assert WEAK.identity() == known == View(pad=4, flip=True, ratio=(0.5, 2.0)).identity()
    assert RESIZED.identity() == known | {"pad": 0, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}


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


@pytest.mark.parametrize("view", [WEAK, STRONG, RESIZED])
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
    [
        ({"pad": -1}, "pad"),
        ({"ops": 2, "magnitude": 31}, "magnitude"),
        ({"cutout": 1.5}, "cutout"),
        ({"scale": (0.5,)}, "scale"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"scale": (0.9, 0.1)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"ratio": (0.5, 1.0, 2.0)}, "ratio"),
    ],
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
