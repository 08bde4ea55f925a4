"""A user's own images in a suite file: found, brought to size, measured, and the same wherever they lie."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from kdbench import models
from kdbench.data.loading import load_data, load_split
from kdbench.data.sources import load_folder
from kdbench.data.statistics import mean_std
from kdbench.errors import KdbenchError
from kdbench.runner.inputs import find_inputs
from kdbench.runner.run import resolve
from kdbench.runner.workspace import open_workspace
from kdbench.suites import DataSpec
from tests.support.cli_process import kdbench
from tests.support.image_files import arrays, save, write_folders, write_npz
from tests.support.lab import SUITE_TEXT
from tests.support.pages import block


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def suite_file(folder: Path, table: str) -> str:
    """The laboratory's suite with that data set, as a file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = re.sub(r"\[dataset\].*?(?=\[views)", f"[dataset]\n{table}\n", SUITE_TEXT, flags=re.S)
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def prepared(folder: Path, table: str, say=lambda text: None, **options):
    usual = {"results": folder / "results", "device": "cpu"}
    return open_workspace(*resolve(suite_file(folder, table), **usual, **options), say)


def cells(workspace):
    return find_inputs(workspace, lambda text: None).cells()


def ids(workspace):
    return [cell.id for cell in cells(workspace)]


# --- what is measured ---


def test_mean_and_std_are_numpys_to_four_digits():
    images = arrays(size=9, counts=(1100, 3))["x_train"]  # more than one chunk
    mean, std = mean_std(torch.from_numpy(images))
    pixels = images.reshape(-1, 3).astype(np.float64) / 255
    assert mean == tuple(round(value, 4) for value in pixels.mean(0))
    assert std == tuple(round(value, 4) for value in pixels.std(0))
    assert mean_std(torch.from_numpy(images).flip(0)) == (mean, std)
    half = torch.tensor([[[[0, 255, 51]], [[255, 255, 51]]]], dtype=torch.uint8)
    assert mean_std(half) == ((0.5, 1.0, 0.2), (0.5, 0.0, 0.0))


def test_what_the_suite_leaves_open_is_measured_on_train(tmp_path):
    write_folders(tmp_path / "photos")
    workspace = prepared(tmp_path, 'folder = "photos"')
    mean, std = mean_std(torch.from_numpy(arrays()["x_train"]))
    want = DataSpec("photos", 3, 6, mean, std, folder=str(tmp_path / "photos"))
    assert workspace.suite.dataset == want
    assert cells(workspace)[0].identity()["normalise"] == [mean, std]
    given = prepared(tmp_path, 'folder = "photos"\nmean = [0.1, 0.2, 0.3]').suite.dataset
    assert (given.mean, given.std) == ((0.1, 0.2, 0.3), std)


def test_a_set_of_the_data_folder_is_measured_too(tmp_path):
    (tmp_path / "data").mkdir()
    write_npz(tmp_path / "data", "photos")
    dataset = prepared(tmp_path, 'name = "photos"', data_dir=tmp_path / "data").suite.dataset
    assert (dataset.classes, dataset.size) == (3, 6)
    assert dataset.mean == mean_std(torch.from_numpy(arrays()["x_train"]))[0]


def test_ids_know_the_images_and_not_their_place_or_layout(tmp_path):
    write_folders(tmp_path / "a" / "photos")
    write_folders(tmp_path / "b" / "elsewhere" / "pictures")
    write_npz(tmp_path)
    workspaces = [
        prepared(tmp_path / "a", 'folder = "photos"'),
        prepared(tmp_path / "b", 'folder = "elsewhere/pictures"'),
        prepared(tmp_path / "c", f'npz = "{tmp_path}/mine.npz"'),
    ]
    assert ids(workspaces[0]) == ids(workspaces[1]) == ids(workspaces[2])
    assert [workspace.suite.dataset.name for workspace in workspaces] == ["photos", "pictures", "mine"]
    assert str(tmp_path) not in str([cell.identity() for cell in cells(workspaces[0])])
    file = tmp_path / "a" / "photos" / "train" / "ant" / "0.png"
    save(arrays()["x_train"][0][::-1].copy(), file)
    assert not set(ids(prepared(tmp_path / "a", 'folder = "photos"'))) & set(ids(workspaces[0]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('folder = "photos"\nclasses = 4', "has 3 classes but photos must have 4"),
        ('npz = "mine.npz"\nclasses = 4', r"class 3 \(3\) has no training image"),
        ('npz = "mine.npz"\nsize = 7', "mine are 6x6 pixels, the suite says size = 7"),
        ('npz = "wide.npz"', "wide are 4x6 pixels, they must be square"),
        ('npz = "flat.npz"', "a colour channel is the same in all training images of flat"),
        ('npz = "none.npz"', "no file .*none.npz with the data of none; fix the suite's dataset"),
        ('folder = "none"', "no folder .*none/train with the training images of none"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, table, message):
    write_folders(tmp_path / "photos")
    write_npz(tmp_path)
    write_npz(tmp_path, "wide", **{key: arrays()[key][:, :4] for key in ("x_train", "x_test")})
    write_npz(tmp_path, "flat", x_train=arrays()["x_train"] * 0 + 9)
    with pytest.raises(KdbenchError, match=message):
        prepared(tmp_path, table)


# --- size ---


def striped(height: int, width: int) -> np.ndarray:
    """Each column its own grey, for a wide image; rows for a tall one."""
    line = np.arange(max(height, width), dtype=np.uint8) * 10
    pixels = (
        np.broadcast_to(line, (height, width))
        if width > height
        else np.broadcast_to(line[:, None], (height, width))
    )
    return np.repeat(pixels[..., None], 3, axis=2)


def test_the_middle_square_is_cropped_without_scaling(tmp_path):
    root = write_folders(tmp_path / "photos", counts=(3, 3))
    for size, cut in (((6, 10), np.s_[:, 2:8]), ((12, 6), np.s_[3:9, :])):
        image = striped(*size)
        save(image, root / "train" / "ant" / "0.png")
        images = load_folder("x", root, size=6).train.images.numpy()
        assert any(np.array_equal(found, image[cut]) for found in images)


def test_larger_and_smaller_images_are_scaled(tmp_path):
    root = write_folders(tmp_path / "photos", counts=(3, 3))
    for side in (24, 3):
        quarters = np.zeros((side, 2 * side, 3), np.uint8)
        quarters[:, side:] = 200  # the middle square is half dark, half bright
        save(quarters, root / "train" / "ant" / "0.png")
        data = load_folder("x", root, size=6)
        assert data.train.images.shape == (3, 6, 6, 3)
        (found,) = [image for image in data.train.images if image[0, 0, 0] < 20 and image[0, 5, 0] > 180]
        assert torch.equal(found, found[:1].expand(6, 6, 3))
        assert (found[..., 0].int().diff(dim=1) >= -20).all()


def test_images_that_have_the_size_are_those_of_the_npz(tmp_path):
    write_folders(tmp_path / "photos")
    write_npz(tmp_path)
    assert (
        load_folder("x", tmp_path / "photos", size=6).id
        == load_data(DataSpec("x", npz=str(tmp_path / "mine.npz")), None)[0].id
    )


def test_several_sizes_without_a_size_name_the_file(tmp_path):
    root = write_folders(tmp_path / "photos")
    save(striped(6, 8), root / "test" / "cat" / "5.png")
    with pytest.raises(KdbenchError, match=r"test/cat/5\.png is 6 x 8 \(height x width\).*a size"):
        prepared(tmp_path, 'folder = "photos"')
    assert prepared(tmp_path, 'folder = "photos"\nsize = 6').suite.dataset.size == 6


# --- fewer images ---


def test_per_class_is_the_limit_of_the_suite_file(lab):
    few = lab.open(per_class=3)
    said = lab.open(("size = 8", "size = 8\ntrain_per_class = 3\ntest_per_class = 3"))
    other = lab.open(("size = 8", "size = 8\ntrain_per_class = 9"), per_class=3)
    assert (
        few.split.train.targets.bincount().tolist()
        == few.split.evaluation.targets.bincount().tolist()
        == [3] * 4
    )
    assert ids(few) == ids(said) == ids(other)
    assert not set(ids(few)) & set(ids(lab.open()))
    assert cells(few)[0].dataset == dataclasses.replace(
        lab.suite.dataset, holdout=0.1, train_per_class=3, test_per_class=3, subset="3 a class"
    )
    assert load_split(cells(few)[0].dataset, "test", lab.data).id == few.split.id  # what the cohort will load
    with pytest.raises(KdbenchError, match="per_class must be a whole number of at least 1, got 0"):
        lab.open(per_class=0)


def test_per_class_on_the_command_line(lab):
    lab.suite_file()
    run = [
        "run",
        "--suite",
        "tiny.toml",
        "--data-dir",
        "data",
        "--methods",
        "ce",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    done = kdbench(*run, "--per-class", "4", cwd=lab.folder)
    assert done.code == 0, done.err
    (row,) = pd.read_csv(lab.folder / "results" / "tiny.csv").to_dict("records")
    assert row["cell_id"] == cells(lab.open(per_class=4, methods=["ce"], epochs=1))[0].id
    assert row["dataset"] == "tiny (4 a class)"  # a part of a set never shares a table with the whole
    assert row["top1"] * 16 / 100 == pytest.approx(round(row["top1"] * 16 / 100))  # of 16 test images
    refused = kdbench(*run, "--per-class", "none", cwd=lab.folder)
    assert (refused.code, refused.out) == (1, "")


# --- test images that are trained on ---


@pytest.fixture
def heard():
    return []


def prepared_with(folder, counts, heard, table='folder = "photos"', **options):
    """A workspace of 24 training images and the first of them as test images."""
    content = arrays(counts=counts)
    write_folders(folder / "photos", counts=counts)
    for row in range(4):
        save(content["x_train"][row], folder / "photos" / "test" / "bee" / f"copy{row}.png")
    return prepared(folder, table, say=heard.append, **options)


STREAM = (
    'folder = "photos"\nstream = true\nsize = 6\nworkers = 0\nmean = [0.3, 0.3, 0.3]\nstd = [0.3, 0.3, 0.3]'
)


@pytest.mark.parametrize(
    ("table", "how"), [('folder = "photos"', "pixel for pixel"), (STREAM, "byte for byte")]
)
def test_test_images_in_train_are_counted_and_told(tmp_path, heard, table, how):
    workspace = prepared_with(tmp_path, (24, 9), heard, table)
    assert workspace.test_in_train == 4
    assert [line for line in heard if "4 of the 13 images that are measured on are in train too" in line]
    assert how in heard[-1]
    heard.clear()
    again = prepared(tmp_path, table, say=heard.append)  # from the cache
    assert (again.test_in_train, len(heard)) == (4, 1)
    assert prepared(tmp_path, table, say=heard.append, split="holdout").test_in_train == 0
    assert len(heard) == 1


def test_a_limit_counts_what_it_keeps(tmp_path, heard):
    workspace = prepared_with(tmp_path, (24, 9), heard, per_class=1)
    train, test = (
        {image.numpy().tobytes() for image in part.images}
        for part in (workspace.split.train, workspace.split.evaluation)
    )
    assert workspace.test_in_train == len(train & test)


def test_many_files_of_equal_lengths_are_not_counted(tmp_path, heard, monkeypatch):
    monkeypatch.setattr("kdbench.data.streaming.READ_AT_MOST", 10)
    assert prepared_with(tmp_path, (24, 9), heard, STREAM).test_in_train is None
    assert heard == []


def test_the_count_is_on_the_command_line(tmp_path):
    prepared_with(tmp_path, (24, 9), [])
    options = ["--methods", "ce", "--epochs", "1", "--device", "cpu", "--split", "test"]
    done = kdbench("run", "--suite", "mine.toml", *options, cwd=tmp_path)
    assert (done.code, "WARNING: 4 of the 13 images" in done.err) == (0, True), done.err


# --- documentation ---


def test_the_ten_lines_of_the_documentation_run(tmp_path):
    text = block("docs/add-a-dataset.md", "toml", "photos")
    assert len([line for line in text.splitlines() if line]) <= 10
    (tmp_path / "mine.toml").write_text(text)
    write_folders(tmp_path / "photos", size=40, counts=(6, 6), suffix="jpg")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(models.create("resnet56", 3).state_dict(), tmp_path / "resnet56.safetensors")
    options = [
        "--epochs",
        "1",
        "--seeds",
        "0",
        "--precision",
        "fp32",
        "--teacher-weights",
        ".",
        "--device",
        "cpu",
    ]
    done = kdbench("run", "--suite", "mine.toml", *options, cwd=tmp_path)
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "results" / "mine.csv")
    assert (rows["status"] == "ok").all()
    assert sorted(rows["method"]) == ["ce", "dkd", "kd"]
    assert set(rows["dataset"]) == {"photos"}
    assert "expects" not in done.err  # CIFAR-100's accuracies are not expected of these images
