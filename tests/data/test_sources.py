"""Every layout gives the same data set, and everything wrong one sentence that names it and its remedy."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.data.sources import load_dataset
from kdbench.errors import KdbenchError
from tests.support.image_files import NAMES, arrays, write_folders, write_npz, write_torchvision


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path_factory):
    """No data folder, cache or network of the machine takes part."""
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path_factory.mktemp("home") / "cache"))


def refused(folder: Path | None, *words: str, name: str = "mine", num_classes: int | None = None) -> None:
    """Loading fails with one sentence that holds all the words."""
    with pytest.raises(KdbenchError) as caught:
        load_dataset(name, folder, num_classes)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


class TestLayouts:
    def test_npz(self, tmp_path):
        data = load_dataset("mine", write_npz(tmp_path, class_names=np.array(NAMES)))
        content = arrays()
        assert data.class_names == NAMES
        assert data.num_classes == 3
        for part in ("train", "test"):
            made = {
                i.numpy().tobytes(): int(t) for i, t in zip(*vars(getattr(data, part)).values(), strict=True)
            }
            want = {
                i.tobytes(): int(t) for i, t in zip(content[f"x_{part}"], content[f"y_{part}"], strict=True)
            }
            assert made == want
        assert data.train.images.dtype == torch.uint8
        assert data.train.targets.dtype == torch.int64

    def test_labels_as_a_column_of_bytes_and_no_names(self, tmp_path):
        content = arrays()
        want = load_dataset("mine", write_npz(tmp_path)).id
        columns = {key: content[key].astype(np.uint8)[:, None] for key in ("y_train", "y_test")}
        data = load_dataset("mine", write_npz(tmp_path, **columns))
        assert data.id == want
        assert data.class_names == ("0", "1", "2")

    @pytest.mark.parametrize("test", ["test", "val"])
    @pytest.mark.parametrize("below", ["", "mine"])
    def test_folders_give_the_ids_of_the_npz(self, tmp_path, test, below):
        (tmp_path / "npz").mkdir()
        want = load_dataset("mine", write_npz(tmp_path / "npz"))
        write_folders(tmp_path / "data" / below, test)
        data = load_dataset("mine", tmp_path / "data")
        assert data.id == want.id
        assert torch.equal(data.train.images, want.train.images)
        assert torch.equal(data.test.targets, want.test.targets)
        assert data.class_names == NAMES

    def test_numbered_folders_are_ordered_as_numbers(self, tmp_path):
        data = load_dataset("mine", write_folders(tmp_path, names=("2", "10", "33")))
        assert data.class_names == ("2", "10", "33")

    def test_other_files_and_hidden_folders_are_passed_over(self, tmp_path):
        want = load_dataset("mine", write_folders(tmp_path)).id
        (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
        (tmp_path / "train" / "ant" / "._0.png").write_text("no image")
        (tmp_path / "train" / ".cache").mkdir()
        assert load_dataset("mine", tmp_path).id == want

    def test_grey_palette_and_rgba_become_rgb(self, tmp_path):
        root = write_folders(tmp_path)
        grey = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6))
        files = [root / "train" / "ant" / f"{row}.png" for row in (0, 3, 6)]
        for mode, file in zip(("L", "P", "RGBA"), files, strict=True):
            grey.convert(mode).save(file)
        images = load_dataset("mine", root).train.images
        want = torch.arange(36, dtype=torch.uint8).view(6, 6, 1).expand(6, 6, 3)
        assert (images == want).flatten(1).all(1).sum() == 3

    def test_jpeg(self, tmp_path):
        root = write_folders(tmp_path)
        flat = Image.new("RGB", (6, 6), (80, 80, 80))
        for suffix in ("jpg", "JPEG"):
            flat.save(root / "test" / "bee" / f"flat.{suffix}", format="jpeg")
        images = load_dataset("mine", root).test.images
        assert (images.int() - 80).abs().flatten(1).amax(1).lt(3).sum() == 2

    def test_torchvision_gives_the_ids_of_the_npz(self, tmp_path, monkeypatch):
        content = write_torchvision(tmp_path / "layout", monkeypatch)
        (tmp_path / "npz").mkdir()
        want = load_dataset("cifar10", write_npz(tmp_path / "npz", "cifar10", **content))
        data = load_dataset("cifar10", tmp_path / "layout")
        assert data.id == want.id
        assert data.class_names[9] == "class9"

    def test_npz_comes_before_folders(self, tmp_path):
        write_folders(tmp_path)
        assert load_dataset("mine", write_npz(tmp_path)).class_names == ("0", "1", "2")

    def test_environment_names_the_folder_and_the_argument_wins(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KDBENCH_DATA", str(write_npz(tmp_path)))
        assert len(load_dataset("mine", None).train) == 24
        refused(tmp_path / "other", "other does not exist")


class TestFolderItself:
    def test_missing(self, tmp_path):
        refused(tmp_path / "typo", "typo does not exist", "--data-dir")
        refused(tmp_path / "typo", "typo does not exist", name="cifar100")
        assert not (tmp_path / "typo").exists()

    def test_missing_in_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KDBENCH_DATA", str(tmp_path / "typo"))
        refused(None, "typo does not exist", "KDBENCH_DATA", name="cifar100")

    @pytest.mark.parametrize("name", ["mine", "cifar100"])
    def test_empty(self, tmp_path, name):
        refused(tmp_path, "is empty", f"{name}.npz", name=name)
        assert not list(tmp_path.iterdir())

    def test_a_file(self, tmp_path):
        refused(write_npz(tmp_path) / "mine.npz", "is a file", "--data-dir")

    def test_nothing_found(self, tmp_path):
        (tmp_path / "readme.txt").touch()
        refused(tmp_path, "no data for mine", "mine.npz", "x_train", "train/<class>/*.png", "--data-dir")
        refused(None, "no data for mine", "cache", "--data-dir")


def test_a_damaged_torchvision_layout_is_named(tmp_path, monkeypatch):
    write_torchvision(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cut")
    refused(tmp_path, "cifar-10-batches-py", "checksums", "remove it", name="cifar10")


class TestBadNpz:
    @pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps([1, 2, 3])])
    def test_not_an_npz(self, tmp_path, content):
        (tmp_path / "mine.npz").write_bytes(content)
        refused(tmp_path, "mine.npz is not an npz file or is cut short")

    def test_truncated(self, tmp_path):
        path = write_npz(tmp_path) / "mine.npz"
        path.write_bytes(path.read_bytes()[:-200])
        refused(tmp_path, "mine.npz", "cut short")

    def test_damaged_inside(self, tmp_path):
        path = write_npz(tmp_path) / "mine.npz"
        content = bytearray(path.read_bytes())
        content[600] ^= 255  # a pixel: the archive's checksum no longer fits
        path.write_bytes(content)
        refused(tmp_path, "mine.npz cannot be read", "copy it again")

    def test_missing_key(self, tmp_path):
        refused(write_npz(tmp_path, y_test=None, y=np.arange(3)), "lacks y_test", "x_train", "np.savez")

    @pytest.mark.parametrize("key", ["x_train", "y_test", "class_names"])
    def test_pickled_objects(self, tmp_path, key):
        trap = np.array([Path("harmless"), None, None], dtype=object)
        refused(write_npz(tmp_path, **{key: trap}), key, "nothing is unpickled")

    def test_float_pixels(self, tmp_path):
        pixels = arrays()["x_train"].astype(np.float32) / 255
        refused(write_npz(tmp_path, x_train=pixels), "x_train has dtype float32", "multiply by 255")

    @pytest.mark.parametrize(
        ("shape", "remedy"),
        [((24, 6, 6), "np.repeat"), ((24, 3, 6, 6), "transpose"), ((24, 6, 6, 1), "save images")],
    )
    def test_wrong_shape(self, tmp_path, shape, remedy):
        refused(write_npz(tmp_path, x_train=np.zeros(shape, np.uint8)), "x_train has shape", remedy)

    def test_no_images(self, tmp_path):
        empty = {"x_test": np.zeros((0, 6, 6, 3), np.uint8), "y_test": np.zeros(0, np.int64)}
        refused(write_npz(tmp_path, **empty), "x_test has shape [0, 6, 6, 3]")

    def test_two_sizes(self, tmp_path):
        refused(write_npz(tmp_path, x_test=np.zeros((9, 6, 8, 3), np.uint8)), "6 x 6", "6 x 8", "resize")

    def test_lengths(self, tmp_path):
        refused(write_npz(tmp_path, y_train=np.arange(20) % 3), "24 images", "20 labels")

    @pytest.mark.parametrize(
        "labels", [np.eye(3, dtype=np.int64)[np.arange(24) % 3], np.arange(24) % 3 / 1.0]
    )
    def test_labels_that_are_no_class_numbers(self, tmp_path, labels):
        refused(write_npz(tmp_path, y_train=labels), "y_train", "whole numbers", "argmax")

    @pytest.mark.parametrize(
        ("label", "num_classes"), [(-1, 3), (3, 3), (10**9, 3), (10**9, None), (-1, None)]
    )
    @pytest.mark.parametrize("part", ["train", "test"])
    def test_label_out_of_range(self, tmp_path, part, label, num_classes):
        labels = arrays()[f"y_{part}"].copy()
        labels[5] = label
        refused(
            write_npz(tmp_path, **{f"y_{part}": labels}),
            f"y_{part}[5] is {label}",
            "renumber",
            num_classes=num_classes,
        )

    def test_labels_from_one(self, tmp_path):
        content = arrays()
        labels = {key: content[key] + 1 for key in ("y_train", "y_test")}
        refused(write_npz(tmp_path, **labels), "y_train[2] is 3", "0..2", "renumber")

    def test_a_class_without_a_test_image_and_dark_pixels_are_told(self, tmp_path):
        x_test, y_test = arrays()["x_test"] // 255, np.arange(9) % 2 + 1
        lacking = load_dataset("mine", write_npz(tmp_path, y_test=y_test)).notes
        assert lacking == (f"WARNING: {tmp_path}/mine.npz: x_test has no image of 1 of the 3 classes: 0",)
        (dark,) = load_dataset("mine", write_npz(tmp_path, x_test=x_test)).notes
        assert "no pixel of x_test is above 1 (of 255)" in dark
        assert load_dataset("mine", write_npz(tmp_path)).notes == ()

    def test_class_without_a_training_image(self, tmp_path):
        refused(write_npz(tmp_path), "class 3 (3)", "3 of 4 classes", num_classes=4)

    def test_another_set_under_the_name(self, tmp_path):
        refused(write_npz(tmp_path, "cifar100"), "class 3", "3 of 100 classes", name="cifar100")

    def test_class_names(self, tmp_path):
        refused(write_npz(tmp_path, class_names=np.arange(3)), "class_names must be a list of strings")
        refused(write_npz(tmp_path, class_names=np.array(NAMES)), "3 classes", "must have 4", num_classes=4)


class TestBadFolders:
    def test_no_test_part(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "test").rename(root / "tset")
        refused(root, "neither test nor val")

    def test_class_count(self, tmp_path):
        refused(write_folders(tmp_path), "3 classes", "cifar100 must have 100", name="cifar100")

    def test_class_only_in_test(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "test" / "dog").mkdir()
        refused(root, "dog has no counterpart", "train")

    def test_class_without_images(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "train" / "dog").mkdir()
        refused(root, "dog holds no image", "*.png")

    def test_empty_parts(self, tmp_path):
        (tmp_path / "train").mkdir()
        (tmp_path / "test").mkdir()
        refused(tmp_path, "train holds no images")

    @pytest.mark.parametrize("content", [b"", b"no picture", "truncated"])
    def test_corrupt_image_is_named(self, tmp_path, content):
        file = write_folders(tmp_path) / "test" / "bee" / "4.png"
        file.write_bytes(file.read_bytes()[:60] if content == "truncated" else content)
        refused(tmp_path, str(Path("test") / "bee" / "4.png"), "corrupt, cut short or no image")

    def test_a_link_to_nowhere_is_named(self, tmp_path):
        file = write_folders(tmp_path) / "test" / "bee" / "4.png"
        file.unlink()
        file.symlink_to("elsewhere.png")
        refused(tmp_path, str(Path("test") / "bee" / "4.png"), "cannot be read")

    def test_a_cut_anywhere_is_named_or_loses_no_pixel(self, tmp_path):
        file = write_folders(tmp_path) / "train" / "ant" / "0.png"
        whole, want = file.read_bytes(), load_dataset("mine", tmp_path).id
        for length in range(0, len(whole), 5):
            file.write_bytes(whole[:length])
            if length < len(whole) - 20:
                refused(tmp_path, "0.png")
            else:  # only checksums and the end mark are gone
                assert load_dataset("mine", tmp_path).id == want

    def test_other_size_is_named(self, tmp_path):
        root = write_folders(tmp_path)
        Image.new("RGB", (8, 6)).save(root / "train" / "cat" / "5.png")
        refused(root, "5.png is 6 x 8 (height x width)", "0.png is 6 x 6", "resize")

    def test_more_than_8_bits(self, tmp_path):
        root = write_folders(tmp_path)
        Image.fromarray(np.full((6, 6), 4000, np.uint16)).save(root / "train" / "cat" / "5.png")
        refused(root, "5.png has more than 8 bits")
