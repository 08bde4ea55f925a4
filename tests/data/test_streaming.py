"""Images that stream from class folders: listed, decoded once, the same views wherever they are decoded."""

import dataclasses

import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from kdbench.data.augment import draw, part_of, render
from kdbench.data.dataset import split_dataset
from kdbench.data.loading import load_data
from kdbench.data.streaming import FileSet, Streamed, image_folder, list_images
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View, find_view
from kdbench.train.ranks import Ranks
from kdbench.utils.rng import generator
from tests.support.loops import same
from tests.support.pictures import NAMES, RESIZE, SIZE, SPEC, STRONG, WEAK, listed

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # two workers on one processor

CPU = torch.device("cpu")
WHERE = ("split", 0, 3)


# --- the listing ---


def test_every_file_is_listed_once_under_its_class(images):
    dataset = listed(images)
    assert dataset.class_names == NAMES
    for part, folder, count in ((dataset.train, "train", 24), (dataset.test, "val", 12)):
        paths = [part.path(row) for row in range(len(part))]
        assert sorted(paths) == sorted((images / folder).glob("*/*.JPEG"))
        assert len(part) == count
        assert [path.parent.name for path in paths] == [NAMES[label] for label in part.targets]


def test_the_id_is_of_names_lengths_and_sizes_wherever_they_lie(images, own):
    known = listed(images)
    again = listed(own)
    assert again.id == known.id
    assert (again.train.files == known.train.files).all()
    few = listed(own, per_class=(5, None))
    others = {
        known.id,
        few.id,
        list_images("pictures", own, SIZE, RESIZE + 1).id,
        list_images("pictures", own, 24).id,
    }
    file = own / "train" / "n01" / "n01_3.JPEG"
    file.write_bytes(file.read_bytes() + b"\0")
    others.add(listed(own).id)
    file.rename(file.with_name("n01_99.JPEG"))
    others.add(listed(own).id)
    (own / "val" / "n02" / "n02_0.JPEG").unlink()
    others.add(listed(own).id)
    assert len(others) == 7


def test_the_order_is_no_order_of_classes_or_names(images):
    """So the first n of a class, and a holdout split, are no choice of the files' names."""
    train = listed(images).train
    assert (train.targets.diff() != 0).sum() > 6
    numbers = [train.path(row).name for row in range(24) if train.targets[row] == 0]
    assert numbers != sorted(numbers)


def test_limits_and_holdout_take_parts_of_the_listing(images):
    whole, few = listed(images), listed(images, per_class=(5, 2))
    assert few.train.targets.bincount().tolist() == [5, 5, 5]
    assert few.test.targets.bincount().tolist() == [2, 2, 2]
    assert set(few.train.files) < set(whole.train.files)
    parts = split_dataset(whole, "holdout", 0.25)
    assert parts.evaluation.targets.bincount().tolist() == [2, 2, 2]
    assert not set(parts.train.files) & set(parts.evaluation.files)
    assert set(parts.train.files) | set(parts.evaluation.files) == set(whole.train.files)
    assert split_dataset(whole, "test", 0.25).id != parts.id


def test_the_folder_is_named_or_found(images, monkeypatch):
    assert image_folder("pictures", images.parent) == image_folder("another", images) == images
    monkeypatch.setenv("KDBENCH_DATA", str(images.parent))
    assert image_folder("pictures", None) == images
    with pytest.raises(KdbenchError, match=r"no images of pictures in .*val.*--data-dir"):
        image_folder("pictures", images / "val")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "val").rename(root / "elsewhere"), "there is no folder .*test"),
        (lambda root: (root / "train" / "n02").rename(root / "train" / "n03"), "val/n02 has no counterpart"),
        (lambda root: (root / "train" / "n99").mkdir(), "train/n99 holds no image"),
        (lambda root: [f.unlink() for f in (root / "val").glob("*/*")], "val holds no images"),
        (lambda root: [d.rename(root / d.name) for d in (root / "val").iterdir()], "val holds no images"),
    ],
)
def test_strange_folders_are_named(own, spoil, words):
    spoil(own)
    with pytest.raises(KdbenchError, match=words):
        listed(own)


def test_a_spec_finds_its_images_and_counts_its_classes(images):
    dataset, measured = load_data(dataclasses.replace(SPEC, classes=0, train_per_class=4), images.parent)
    assert measured.classes == 3
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    assert isinstance(dataset.train, FileSet)
    folder = dataclasses.replace(SPEC, folder=str(images))
    assert load_data(folder, None)[0].id == load_data(SPEC, images)[0].id
    with pytest.raises(KdbenchError, match=r"has 3 classes but pictures must have 1000"):
        load_data(dataclasses.replace(SPEC, classes=1000), images)


# --- one batch ---


def batches(images, workers, first_step=0, size=7, views=None, order=WHERE):
    feed = Streamed(listed(images, workers).train, CPU)
    return list(feed.epoch(views or {"weak": WEAK, "strong": STRONG}, order, size, first_step))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_torchvisions_resize_and_centre_crop(images, workers):
    part = listed(images, workers).test
    rows, targets, shown = (torch.cat(each) for each in zip(*Streamed(part, CPU).plain(5), strict=True))
    assert rows.tolist() == list(range(12))
    assert torch.equal(targets, part.targets)
    for row in range(12):
        picture = CenterCrop(SIZE)(Resize(RESIZE)(Image.open(part.path(row)).convert("RGB")))
        assert torch.equal(shown[row], pil_to_tensor(picture).float() / 255)


@pytest.mark.parametrize("size", [7, 5])  # with a last batch of 3 and of 4
@pytest.mark.parametrize("world", [2, 3])
def test_a_rank_decodes_its_part_of_each_batch(images, monkeypatch, size, world):
    """What several ranks decode is what one decodes, each file once; a last batch that is too small, on each rank."""
    whole, read = batches(images, 0, size=size), []
    path = FileSet.path
    monkeypatch.setattr(FileSet, "path", lambda files, row: read.append(row) or path(files, row))
    feed, views = Streamed(listed(images, 0).train, CPU), {"weak": WEAK, "strong": STRONG}
    parts = [list(feed.epoch(views, WHERE, size, 0, Ranks(rank, world).part)) for rank in range(world)]
    shared = [fed.rows for fed in whole if len(fed.rows) >= 2 * world]
    alone = [fed.rows for fed in whole if len(fed.rows) < 2 * world]
    assert sorted(read) == sorted(torch.cat(shared + world * alone).tolist())
    for step, fed in enumerate(whole):
        own = [each[step] for each in parts]
        assert all(
            torch.equal(each.index, fed.index) and torch.equal(each.target, fed.target) for each in own
        )
        own = own if len(fed.rows) >= 2 * world else own[:1]
        assert torch.equal(torch.cat([each.rows for each in own]), fed.rows)
        for view in views:
            assert torch.equal(torch.cat([each.images[view] for each in own]), fed.images[view])


def test_views_are_what_the_draws_say(images):
    """Against torchvision's crop of the decoded file, then the in-memory views of one image."""
    part = listed(images).train
    draws = draw(STRONG, 24, (SIZE, SIZE), generator("view:strong", *WHERE))
    rest = dataclasses.replace(STRONG, scale=None)
    seen = []
    for fed in batches(images, 0):
        assert fed.images["strong"].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(fed.target, part.targets[fed.index])
        assert torch.equal(fed.rows, fed.index)
        for place, row in enumerate(fed.rows.tolist()):
            drawn = {key: values[row : row + 1] for key, values in draws.items()}
            assert same(
                {key: values[place : place + 1] for key, values in fed.draws["strong"].items()}, drawn
            )
            picture = Image.open(part.path(row)).convert("RGB")
            box = part_of(STRONG, drawn["part"][0].tolist(), picture.height, picture.width)
            pixels = pil_to_tensor(resized_crop(picture, *box, [SIZE, SIZE])).permute(1, 2, 0)[None]
            assert torch.equal(fed.images["strong"][place], render(rest, pixels, drawn)[0])
            seen.append(row)
    assert seen == torch.randperm(24, generator=generator("order", *WHERE)).tolist()


def test_a_view_without_a_resized_crop_starts_from_the_centre(images):
    view = View(pad=4, flip=True)
    part = listed(images).train
    middle = torch.cat([shown for _, _, shown in Streamed(part, CPU).plain(24)])
    pixels = (middle * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    for fed in batches(images, 0, views={"weak": view}):
        assert torch.equal(fed.images["weak"], render(view, pixels[fed.rows], fed.draws["weak"]))


def test_turned_views_are_of_the_same_crop(images):
    views = {"strong": STRONG} | {
        name: find_view({"strong": STRONG}, name) for name in ("strong@1", "strong@3")
    }
    for fed in batches(images, 0, views=views):
        for name, turn in (("strong@1", 1), ("strong@3", 3)):
            assert torch.equal(fed.images[name], fed.images["strong"].rot90(turn, (2, 3)))


def test_workers_batch_mates_and_other_views_change_no_view(images):
    def rows(found):
        return {
            int(row): image for fed in found for row, image in zip(fed.rows, fed.images["weak"], strict=True)
        }

    known = batches(images, 0)
    for fed, other in zip(known, batches(images, 2), strict=True):
        assert torch.equal(fed.index, other.index)
        assert same(fed.images, other.images)
    assert same(rows(batches(images, 2, size=5, views={"weak": WEAK})), rows(known))
    assert not same(rows(batches(images, 0, order=("split", 0, 4))), rows(known))


def test_samples_are_decoded_once_and_skipped_ones_never(images, decoded):
    whole = batches(images, 0)
    assert sorted(decoded) == sorted((images / "train").glob("*/*.JPEG"))
    decoded.clear()
    (rest,) = batches(images, 0, first_step=3)
    assert len(decoded) == len(rest.index) == 3
    assert same(rest.images, whole[3].images)
    assert batches(images, 0, first_step=4) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named(own, workers):
    file = own / "train" / "n02" / "n02_5.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(KdbenchError) as caught:
        batches(own, workers)
    assert str(caught.value) == f"{file} is corrupt, cut short or no image; replace or remove it"
