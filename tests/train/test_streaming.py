"""The cohort loop and the command line on images that stream: what holds in memory holds here, bit for bit."""

import dataclasses
from pathlib import Path

import pytest
import torch

from kdbench import models, suites
from kdbench.data.dataset import split_dataset
from kdbench.data.loading import load_data
from kdbench.errors import KdbenchError
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection
from kdbench.results import store
from kdbench.runner.executors import base
from kdbench.runner.run import run
from kdbench.suites import DataSpec, ModelSpec, Pair
from kdbench.teachers.weights import open_teacher
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from kdbench.train.job import Job
from kdbench.train.schedule import learning_rate
from kdbench.utils.rng import generator
from kdbench.utils.state_dicts import save_weights
from tests.support.lab import RECIPE, SUITE
from tests.support.loops import After, same, state_of
from tests.support.pictures import SPEC, STRONG, WEAK, listed

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # two workers on one processor


@dataclasses.dataclass
class Room:
    """Three classes that stream, a teacher on disk, and cohorts of them."""

    images: Path
    work: Path
    spec: DataSpec = SPEC

    def cells(self, *methods, **recipe):
        recipe = dataclasses.replace(RECIPE, batch_size=10, milestones=(150,), **recipe)
        views = {"weak": WEAK, "strong": STRONG}
        suite = dataclasses.replace(SUITE, dataset=self.spec, views=views, recipe=recipe)
        split_id = split_dataset(load_data(self.spec, self.images)[0], "test", 0.25).id
        pair = Pair("teacher", "student")
        return plan_cells(Selection(suite, methods, [pair], [0]), split_id, {"teacher": self.teacher.id})

    @property
    def teacher(self):
        model, file = (
            ModelSpec("resnet8", {"widths": [8, 8, 8, 16]}),
            self.images.parent / "teacher.safetensors",
        )
        if not file.is_file():
            with torch.random.fork_rng():
                torch.manual_seed(3)
                save_weights(file, models.create(model.arch, 3, **model.args).state_dict())
        return open_teacher("teacher", model, file, self.spec, None)

    def at(self, name):
        """The same room, its checkpoints elsewhere."""
        return dataclasses.replace(self, work=self.work / name)

    def job(self, planned):
        return Job(tuple(planned), self.teacher, self.images, self.work, "cpu")

    def train(self, planned, **options):
        return train_cohort(self.job(planned), **options)


@pytest.fixture
def room(images, tmp_path, scratch_registry):
    return Room(images, tmp_path)


def equal(left, right):
    """Two lists of results, but for times."""
    return all(
        a.row["status"] == b.row["status"] and same(a.student, b.student) and same(a.curves, b.curves)
        for a, b in zip(left, right, strict=True)
    )


def test_a_cell_alone_is_the_cell_in_a_cohort_whoever_decodes(room):
    planned = room.cells("ce", "mlkd")
    together, _ = room.train(planned)
    assert [result.row["status"] for result in together] == ["ok"] * 2
    assert equal([room.at(cell.method).train([cell])[0][0] for cell in planned], together)
    helped = dataclasses.replace(room.at("helped"), spec=dataclasses.replace(SPEC, workers=2))
    assert [cell.id for cell in helped.cells("ce", "mlkd")] == [cell.id for cell in planned]
    assert equal(helped.train(helped.cells("ce", "mlkd"))[0], together)


@pytest.mark.parametrize(("questions", "left"), [(2, 4 + 24), (5, 14)])
def test_stopped_and_resumed_is_uninterrupted(room, decoded, questions, left):
    """Three steps an epoch; stopped before the third of the first or the second of the second epoch."""
    planned = room.cells("kd", "mlkd")
    whole, _ = room.train(planned)
    other = room.at("stopped")
    assert other.train(planned, stop=After(questions))[1]
    decoded.clear()
    assert equal(other.train(planned)[0], whole)
    assert sum("train" in file.parts for file in decoded) == left
    for cell in planned:
        assert same(state_of(other, cell), state_of(room, cell))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_are_recorded_while_a_loader_pins_memory(room):
    """Its thread calls CUDA while a graph is captured."""
    room = dataclasses.replace(room, spec=dataclasses.replace(SPEC, workers=2))
    planned = room.cells("ce", "mlkd", epochs=4)
    job = dataclasses.replace(room.job(planned), device="cuda:0")
    eager, _ = train_cohort(job)
    fast, _ = train_cohort(dataclasses.replace(job, graphs="branches", work=room.work / "recorded"))
    for result, expected in zip(fast, eager, strict=True):
        assert result.row["status"] == "ok", result.row["error"]
        for name, value in expected.student.items():
            torch.testing.assert_close(result.student[name], value, rtol=1e-2, atol=1e-3)


def test_images_are_decoded_once_per_epoch_for_all_networks(room, decoded):
    cohort = Cohort(room.job(room.cells("kd", "dkd", "mlkd", eval_every=2)), Progress())
    decoded.clear()
    seen = {}

    def watch(name):
        def note(module, args):
            if module.training or name == "teacher":
                seen.setdefault(name, []).append(args[0].clone())

        return note

    cohort.teacher.register_forward_pre_hook(watch("teacher"))
    for trainee in cohort.trainees:
        trainee.net.register_forward_pre_hook(watch(trainee.cell.method))
    cohort.run(lambda: False)
    trained = [file for file in decoded if "train" in file.parts]
    assert sorted(trained) == sorted(2 * list((room.images / "train").glob("*/*.JPEG")))
    assert len(seen["teacher"]) == 2 * 3 * 2  # epochs, steps, views: no forward twice
    assert same(seen["mlkd"], seen["teacher"])
    assert same(seen["kd"], seen["dkd"])
    assert same(seen["kd"], seen["teacher"][::2])


def test_an_unreadable_file_in_training_loses_nothing(own, tmp_path, scratch_registry):
    """It is named and the state until there kept; trained on after its repair it is the uninterrupted run."""
    room = Room(own, tmp_path)
    planned = room.cells("kd", "ce")
    whole, _ = room.at("whole").train(planned)
    assert room.train(planned, stop=After(3))[1]
    order = torch.randperm(24, generator=generator("order", planned[0].split_id, 0, 1))
    file = listed(own).train.path(int(order[23]))  # of the last batch of the second epoch
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    with pytest.raises(KdbenchError, match=f"{file.name} is corrupt"):
        room.train(planned)
    assert [(state_of(room, cell)["epoch"], state_of(room, cell)["step"]) for cell in planned] == [(1, 1)] * 2
    file.write_bytes(content)
    assert equal(room.train(planned)[0], whole)


# --- from the command line ---

SUITE_FILE = """
base = "imagenet"
methods = ["ce", "kd"]
[dataset]
name = "imagenet"
classes = 3
size = 32
eval_resize = 36
workers = 0
[recipe]
epochs = 2
batch_size = 10
[models]
resnet34 = { arch = "resnet8", args = { widths = [8, 8, 8, 16] } }
resnet18 = { arch = "resnet8", args = { widths = [4, 4, 8, 8] } }
"""
ONE_PAIR = 'pairs = [{ teacher = "resnet34", student = "resnet18" }]\n'


def test_a_suite_on_imagenet_runs_and_is_done_once(images, tmp_path, monkeypatch):
    """The published suite with three classes and small networks: the teacher trained, then both methods."""
    file = tmp_path / "pictures.toml"
    file.write_text(ONE_PAIR + SUITE_FILE + "[teachers]\nresnet34 = { top1 = 0.0 }\n")
    options = {"data_dir": images, "results": tmp_path / "results", "device": "cpu", "progress": Progress()}
    outcome = run(file, **options)
    assert outcome.exit_code == 0
    rows = store.read(tmp_path / "results" / "pictures.csv").set_index("method")
    assert set(rows.index) == {"ce", "kd"}
    assert set(rows["status"]) == {"ok"}
    assert rows.loc["kd", "dataset"] == "imagenet"
    monkeypatch.setattr(base, "train_cohort", None)
    assert run(file, **options).exit_code == 0


def test_the_imagenet_suite_is_the_literatures(scratch_registry):
    suite = suites.load("imagenet")
    assert (suite.dataset.size, suite.dataset.eval_resize, suite.dataset.stream) == (224, 256, True)
    parameters = {
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "resnet18": 11_689_512,
        "mobilenetv1": 4_231_976,
    }
    with torch.device("meta"):
        for name, count in parameters.items():
            spec = suite.model(name)
            assert models.count_parameters(models.create(spec.arch, 1000, **spec.args)) == count
    falls = [learning_rate(suite.recipe, epoch, 0, 1) for epoch in (29, 30, 59, 60, 89, 90)]
    assert falls == pytest.approx([0.2, 0.02, 0.02, 2e-3, 2e-3, 2e-4])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("size = 32", "size = 0", "size, mean and std"),
        ("eval_resize = 36", "eval_resize = 30", "eval_resize must be at least size = 32"),
        ("workers = 0", "workers = -1", "workers must be 0 or more"),
        ("workers = 0", "stream = false", "eval_resize and workers are for streamed images"),
        ("workers = 0", "scale = 1", "scale"),
    ],
)
def test_a_dataset_that_cannot_stream_is_refused(tmp_path, old, new, words):
    assert old in SUITE_FILE
    (tmp_path / "pictures.toml").write_text(SUITE_FILE.replace(old, new))
    with pytest.raises(KdbenchError, match=words):
        suites.load(str(tmp_path / "pictures.toml"))
