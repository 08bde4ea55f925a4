"""Shared fixtures: one thread, a registry that forgets, and a laboratory of 64 images of 8 px.

The laboratory is real in every part: an npz file that the loader reads, suites as dataclasses, weights on disk. A
cohort of it trains in a fraction of a second.
"""

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdbench import checkpoint, models, plan, registry
from kdbench.data.views import View
from kdbench.job import Job, Result, load_split
from kdbench.session import Session, prepare
from kdbench.suites import DataSpec, ModelSpec, Pair, Recipe, Suite
from kdbench.teachers import Teacher, open_teacher
from kdbench.train import train_cohort
from tests.pictures import count_decodes, write_images

CLASSES, TRAIN, TEST, SIZE = 4, 64, 24, 8


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Decoded folders and downloads of the tests stay among their temporary files."""
    before = os.environ.get("KDBENCH_CACHE")
    os.environ["KDBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("KDBENCH_CACHE")
    if before is not None:
        os.environ["KDBENCH_CACHE"] = before


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors are tiny here: threads only cost, and their number changes sums."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    # the first backward after a FakeTensorMode would start autograd's threads, and then no fork could train
    torch.ones((), requires_grad=True).backward()
    yield
    torch.set_num_threads(count)


@pytest.fixture
def scratch_registry(monkeypatch):
    """The shipped methods are loaded; whatever a test registers is forgotten after it."""
    registry.load()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return registry


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Class folders of pictures, for tests that only read them."""
    return write_images(tmp_path_factory.mktemp("images") / "pictures")


@pytest.fixture
def own(tmp_path):
    """Images that a test may change."""
    return write_images(tmp_path / "pictures")


@pytest.fixture
def decoded(monkeypatch):
    """The files that this process decodes from now on."""
    return count_decodes(monkeypatch)


@pytest.fixture
def in_child():
    """Start ``function(*args)`` in a process of its own; what still runs at the end of the test is killed."""
    started = []

    def start(function: Callable[..., Any], *args: Any) -> multiprocessing.Process:
        process = multiprocessing.get_context("fork").Process(target=function, args=args, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


@pytest.fixture
def wait_for():
    """Wait until ``condition()`` holds; fail after ten seconds, or as many as are given."""

    def wait(condition: Callable[[], Any], what: str = "the other process", seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.002)

    return wait


def _write_images(folder: Path) -> None:
    """tiny.npz: each class is a colour and a bright corner, under noise; never two equal images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(count) % CLASSES
        images = rng.integers(0, 120, (count, SIZE, SIZE, 3))
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 2)
            image[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4, label % 3] += 90
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images.astype(np.uint8), labels
    folder.mkdir()
    np.savez(folder / "tiny.npz", **arrays)


RECIPE = Recipe(
    epochs=2, reference_epochs=240, batch_size=16, lr=0.05, momentum=0.9, nesterov=False, weight_decay=5e-4,
    schedule="step", precision="fp32", eval_every=1, milestones=(150, 180, 210),
)  # fmt: skip

SUITE = Suite(
    name="tiny",
    description="64 images",
    methods=("ce", "kd"),
    seeds=(0,),
    dataset=DataSpec("tiny", CLASSES, SIZE, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3), holdout=0.25),
    views={"weak": View(pad=1, flip=True), "strong": View(pad=1, ops=2, magnitude=10, cutout=0.5)},
    recipe=RECIPE,
    pairs=(Pair("teacher", "student"),),
    models={
        "student": ModelSpec("resnet8", {"widths": [4, 4, 8, 8]}),
        "teacher": ModelSpec("resnet8", {"widths": [8, 8, 8, 16]}),
        "dropper": ModelSpec(
            "vit_tiny_patch16_224",
            {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 4, "num_heads": 2, "drop_rate": 0.3},
        ),
    },
)


SUITE_TEXT = """
description = "64 images"
methods = ["ce", "kd"]
seeds = [0]
[dataset]
name = "tiny"
classes = 4
size = 8
mean = [0.4, 0.4, 0.4]
std = [0.3, 0.3, 0.3]
[views.weak]
pad = 1
flip = true
[recipe]
epochs = 2
reference_epochs = 240
batch_size = 16
lr = 0.05
momentum = 0.9
nesterov = false
weight_decay = 5e-4
schedule = "step"
milestones = [150, 180, 210]
precision = "fp32"
eval_every = 1
[models]
student = { arch = "resnet8", args = { widths = [4, 4, 8, 8] } }
teacher = { arch = "resnet8", args = { widths = [8, 8, 8, 16] } }
[[pairs]]
teacher = "teacher"
student = "student"
"""


@dataclass
class Lab:
    """A data folder, a suite, a teacher, and the way from a selection to results."""

    folder: Path
    suite: Suite
    teacher: Teacher
    work_name: str = "work"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def work(self) -> Path:
        return self.folder / self.work_name

    @property
    def split(self):
        return load_split(self.suite.dataset, "test", self.data)

    def using(self, work: str = "work", **recipe: Any) -> "Lab":
        """The same laboratory under another recipe, its checkpoints in a folder of their own."""
        suite = dataclasses.replace(self.suite, recipe=dataclasses.replace(self.suite.recipe, **recipe))
        return dataclasses.replace(self, suite=suite, work_name=work)

    def suite_file(self, *replaced: tuple[str, str], name: str = "tiny") -> Path:
        """The same suite as a TOML file, some of its text replaced."""
        text = SUITE_TEXT
        for old, new in replaced:
            assert old in text, old
            text = text.replace(old, new)
        file = self.folder / f"{name}.toml"
        file.write_text(text)
        return file

    def prepare(self, *replaced: tuple[str, str], name: str = "tiny", **options: Any) -> Session:
        """The session of a selection from that file."""
        usual = {"data_dir": self.data, "results": self.folder / "results", "device": "cpu"}
        return prepare(str(self.suite_file(*replaced, name=name)), **(usual | options))

    def cells(
        self, *methods: str, student: str = "student", sets: Any = None, **pair: Any
    ) -> list[plan.Cell]:
        registry.load()
        pairs = [Pair("teacher", student, **pair)]
        ids = {"teacher": self.teacher.id}
        return plan.cells(self.suite, methods, pairs, [0], sets or {}, "test", self.split.id, ids)

    def job(self, cells: list[plan.Cell]) -> Job:
        teacher = self.teacher if any(cell.teacher for cell in cells) else None
        return Job(tuple(cells), teacher, self.data, self.work, "cpu")

    def train(self, *methods: str, **options: Any) -> dict[str, Result]:
        """Results by method name."""
        return self.run(self.cells(*methods, **options))

    def run(self, cells: list[plan.Cell], **options: Any) -> dict[str, Result]:
        results, _ = train_cohort(self.job(cells), **options)
        return {str(result.cell): result for result in results}


@pytest.fixture(scope="session")
def lab_parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    _write_images(folder / "data")
    torch.manual_seed(5)
    spec = SUITE.models["teacher"]
    weights = folder / "teacher.safetensors"
    checkpoint.save_weights(weights, models.create(spec.arch, CLASSES, **spec.args).state_dict())
    return folder, open_teacher("teacher", spec, weights, SUITE.dataset, None)


@pytest.fixture
def lab(lab_parts, tmp_path, scratch_registry):
    """The laboratory with an empty folder for checkpoints."""
    folder, teacher = lab_parts
    (tmp_path / "data").symlink_to(folder / "data")
    return Lab(tmp_path, SUITE, teacher)
