"""Tiny-ImageNet as its archive unpacks: the same set as the npz of its images, and every mistake named."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.data.sources import load_dataset, load_folder
from kdbench.errors import KdbenchError
from tests.support.image_files import write_npz, write_tiny_imagenet


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    return write_tiny_imagenet(tmp_path / "tiny-imagenet-200")


def test_it_is_the_set_of_the_npz(root):
    data, want = load_dataset("mine", root), load_dataset("mine", write_npz(root.parent))
    assert data.id == want.id
    for part in ("train", "test"):
        assert torch.equal(getattr(data, part).images, getattr(want, part).images)
        assert torch.equal(getattr(data, part).targets, getattr(want, part).targets)


def test_classes_are_ordered_by_id_and_named_by_words(root):
    assert load_dataset("mine", root).class_names == ("ant, emmet", "n02", "cat")
    (root / "words.txt").unlink()
    assert load_dataset("mine", root).class_names == ("n01", "n02", "n10")


@pytest.mark.parametrize("place", ["tiny-imagenet-200", "tiny-imagenet", "."])
def test_it_is_found_in_the_data_folder(tmp_path, root, place):
    folder = tmp_path / "data"
    shutil.copytree(root, folder / place, dirs_exist_ok=True)
    assert len(load_dataset("tiny-imagenet", folder, 3).train) == 24


def test_the_number_of_classes_is_checked(root):
    with pytest.raises(KdbenchError, match="has 3 classes but tiny-imagenet must have 200"):
        load_dataset("tiny-imagenet", root.parent)


def test_suffixes_in_any_case(tmp_path, root):
    want = load_dataset("mine", root).id
    for suffix in ("jpg", "JPG", "jpeg", "PNG"):
        assert load_dataset("mine", write_tiny_imagenet(tmp_path / suffix, suffix)).id == want


def test_a_grey_jpeg_becomes_rgb(root):
    grey = Image.fromarray(np.full((6, 6), 90, np.uint8))
    grey.save(root / "train" / "n01" / "images" / "n01_0.JPEG")
    images = load_dataset("mine", root).train.images
    assert (images.int() - 90).abs().flatten(1).amax(1).lt(3).sum() == 1


def annotations(root, change):
    file = root / "val" / "val_annotations.txt"
    file.write_text(change(file.read_text()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.replace("val_4.JPEG\t", "val_44.JPEG\t"),
            ("line 5 names val_44.JPEG", "not in", "images"),
        ),
        (lambda t: t.replace("val_4.JPEG\t", "val_3.JPEG\t"), ("line 5 names val_3.JPEG", "twice")),
        (lambda t: t.replace("val_4.JPEG\tn02", "val_4.JPEG\tn07"), ("line 5 names the class n07", "train")),
        (
            lambda t: t.replace("val_4.JPEG\tn02", "val_4.JPEG"),
            ("line 5 is", "instead of file, class and box"),
        ),
        (lambda t: t[:-5], ("line 9 is 'val_8.JPEG", "instead of file, class and box")),
        (lambda t: t[: t.index("val_8")], ("val_8.JPEG has no line in",)),
        (lambda t: "\x00\ufffd" + t, ("line 1 names", "val_0.JPEG, which is not in")),
        (lambda t: t + "\n\n", None),
    ],
)
def test_a_wrong_line_of_the_annotations_is_named(root, change, words):
    annotations(root, change)
    if words is None:  # empty lines are no mistake
        assert len(load_folder("mine", root).test) == 9
        return
    with pytest.raises(KdbenchError) as caught:
        load_folder("mine", root)
    assert "val_annotations.txt" in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_annotations_of_nothing(root):
    annotations(root, lambda text: "")
    shutil.rmtree(root / "val" / "images")
    with pytest.raises(KdbenchError, match=r"val_annotations\.txt names no image"):
        load_dataset("mine", root)


def test_a_class_that_was_not_unpacked_is_named(root):
    (root / "wnids.txt").write_text("n01 n02 n10 n11")
    with pytest.raises(KdbenchError, match=r"the class n11 is in wnids\.txt but not in train"):
        load_dataset("mine", root)
    (root / "wnids.txt").write_text("n01 n10")
    with pytest.raises(KdbenchError, match=r"the class n02 is in train but not in wnids\.txt"):
        load_dataset("mine", root)


def test_a_class_without_images_is_named(root):
    shutil.rmtree(root / "train" / "n02" / "images")
    with pytest.raises(KdbenchError, match=r"train/n02 holds no image"):
        load_dataset("mine", root)


@pytest.mark.parametrize("file", ["train/n10/images/n10_5.JPEG", "val/images/val_3.JPEG"])
def test_a_corrupt_image_is_named(root, file):
    (root / file).write_bytes((root / file).read_bytes()[:60])
    with pytest.raises(KdbenchError, match=f"{file} is corrupt, cut short or no image"):
        load_dataset("mine", root)
