"""Batches of images in memory: however many are rendered at once, each is the same."""

import pytest
import torch

from kdbench.data.augment import render
from kdbench.data.batches import Resident, choices, rows_of, whole
from kdbench.data.dataset import ImageSet
from kdbench.suites.schema import View
from tests.support.loops import same

VIEWS = {
    "weak": View(pad=1, flip=True),
    "strong": View(pad=1, ops=2, magnitude=10, cutout=0.5),
    "weak@1": View(pad=1, flip=True, turn=1),
    "part": View(scale=(0.2, 1.0), flip=True),
}
WHERE = ("split", 0, 3)
CPU = torch.device("cpu")
SIZE, BATCH = 8, 10  # 47 images: four batches and a smaller one


@pytest.fixture
def samples():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (47, SIZE, SIZE, 3), dtype=torch.uint8, generator=random)
    return ImageSet(images, torch.arange(47) % 5)


def batches(feed, first_step=0, part=whole):
    fields = ("rows", "index", "target", "images", "draws")
    return [
        {name: getattr(fed, name) for name in fields}
        for fed in feed.epoch(VIEWS, WHERE, BATCH, first_step, part)
    ]


def test_a_batch_is_what_is_rendered_of_its_rows(samples):
    order, draws = choices(VIEWS, WHERE, 47, (SIZE, SIZE))
    made = batches(Resident(samples, CPU))
    assert [len(batch["rows"]) for batch in made] == [10, 10, 10, 10, 7]
    assert torch.equal(torch.cat([batch["rows"] for batch in made]), order)
    for batch in made:
        drawn = rows_of(draws, batch["rows"])
        for name, view in VIEWS.items():
            assert torch.equal(
                batch["images"][name], render(view, samples.images[batch["rows"]], drawn[name])
            )
            assert batch["images"][name].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("part", [whole, lambda count: slice(count // 3, count)], ids=["whole", "part"])
@pytest.mark.parametrize("first_step", [0, 2, 4, 5])
@pytest.mark.parametrize("blocks", [1, 2, 100])
def test_views_that_are_rendered_ahead_are_the_same(samples, blocks, first_step, part):
    ahead = Resident(samples, CPU, ahead=blocks * BATCH * SIZE * SIZE * 3)
    made = batches(ahead, first_step, part)
    assert same(made, batches(Resident(samples, CPU), part=part)[first_step:])
    assert [len(batch["rows"]) for batch in made] == [len(batch["images"]["weak"]) for batch in made]


def test_ahead_a_view_is_rendered_once_for_many_batches(samples, monkeypatch):
    """A batch launches the conversion alone; a strong view is some 340 launches and waits for the host."""
    rendered = []
    monkeypatch.setattr(
        "kdbench.data.batches.render_bytes",
        lambda view, images, draws: rendered.append(len(images)) or images,
    )
    batches(Resident(samples, CPU, ahead=3 * BATCH * SIZE * SIZE * 3))
    assert rendered == [30] * 4 + [17] * 4
