"""What only a CUDA device can show of training; `test_recorded_steps.py` has its cohorts of CUDA graphs."""

import dataclasses
import gc

import pytest
import torch

from kdbench import registry
from kdbench.models import Network
from kdbench.plan.cohorts import form_cohorts
from kdbench.runner.executors.serial import Serial
from kdbench.runner.training import Locks, train
from kdbench.suites import ModelSpec
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from tests.support.loops import same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda:0")


def on_gpu(lab, cells, **changes):
    return dataclasses.replace(lab.job(cells), device="cuda:0", **changes)


def assert_close(results, expected, tolerance):
    for mine, other in zip(results, expected, strict=True):
        assert mine.row["status"] == other.row["status"], mine.row["error"]
        for name, value in other.student.items():
            torch.testing.assert_close(mine.student[name], value, rtol=tolerance, atol=tolerance)


class Strict(Progress):
    """From the third step of an epoch on, host synchronisation is forbidden."""

    def begin(self, cells, epochs, steps, done):
        self.steps = 0

    def step(self, images):
        self.steps += 1
        if self.steps == 2:
            torch.cuda.set_sync_debug_mode("error")


def _methods():
    registry.load()
    return registry.names()


@pytest.mark.parametrize("method", _methods())
def test_no_step_waits_for_the_device(lab, method):
    """From the third step of an epoch to its last, any synchronisation of the host raises."""
    lab = lab.using(epochs=1, batch_size=8)
    cohort = Cohort(on_gpu(lab, lab.cells(method)), Strict())
    measure = cohort._end_epoch

    def relaxed(epoch):
        torch.cuda.set_sync_debug_mode("default")
        measure(epoch)

    cohort._end_epoch = relaxed
    try:
        results, _ = cohort.run(lambda: False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert results[0].row["status"] in ("ok", "skipped"), results[0].row["error"]


@pytest.mark.parametrize("method", _methods())
def test_graphs_compute_what_eager_steps_compute(lab, method):
    lab = lab.using(epochs=3, batch_size=12)
    cells = lab.cells(method)
    eager = train_cohort(on_gpu(lab.using(work="e"), cells))[0]
    fast = train_cohort(on_gpu(lab.using(work="g"), cells, graphs="sequential"))[0]
    assert_close(fast, eager, 1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "tf32"])
def test_the_device_agrees_with_the_cpu(lab, precision):
    (cell,) = lab.cells("kd")
    here = train_cohort(lab.job([cell]))[0]
    (there,) = lab.using(work="g", precision=precision).cells("kd")
    assert_close(
        train_cohort(on_gpu(lab.using(work="g"), [there]))[0], here, 1e-2 if precision == "fp32" else 0.2
    )


def test_a_cell_is_itself_alone_and_in_a_cohort(lab):
    """Bit for bit, and again: cuDNN takes deterministic algorithms."""
    lab = lab.using(epochs=2, batch_size=12)
    cells = lab.cells("kd", "dkd", "ce", student="dropper")
    together = train_cohort(on_gpu(lab, cells))[0]
    for number, cell in enumerate(cells):
        alone = train_cohort(on_gpu(lab.using(work=f"alone{number}"), [cell]))[0]
        assert same(alone[0].student, together[number].student), str(cell)


def test_bf16_under_graphs_is_bf16(lab):
    lab = lab.using(epochs=2, batch_size=8, precision="bf16")
    cells = lab.cells("ce", "kd", "dkd")
    eager = train_cohort(on_gpu(lab.using(work="e"), cells))[0]
    fast = train_cohort(on_gpu(lab.using(work="g"), cells, graphs="branches"))[0]
    assert_close(fast, eager, 2e-2)


@pytest.mark.parametrize("graphs", ["", "branches"])
def test_memory_does_not_grow_from_epoch_to_epoch(lab, graphs):
    reserved = []

    class Memory(Progress):
        def epoch(self, epoch, measured):
            torch.cuda.synchronize()
            reserved.append(torch.cuda.memory_reserved())

    lab = lab.using(epochs=6, batch_size=2)  # 32 steps: past the recordings
    train_cohort(on_gpu(lab, lab.cells("kd", "dkd", "mlkd"), graphs=graphs), Memory())
    assert max(reserved[2:]) <= reserved[1]


def test_out_of_memory_trains_in_halves(lab, monkeypatch):
    """The first cohort finds no memory; its halves do, since all that it held is free again."""
    wide = ModelSpec("resnet8", {"widths": [64, 64, 64, 64]})
    suite = dataclasses.replace(lab.suite, models={**lab.suite.models, "student": wide})
    lab = dataclasses.replace(lab, suite=suite).using(epochs=1, batch_size=64)
    cells = lab.cells("ce", "kd", "dkd", "ctkd")
    forward, sizes, free = Network.forward, [], []

    def limited(self, images, *needs):
        if len(sizes) < 1 and self.training and torch.is_grad_enabled():
            sizes.append(torch.cuda.memory_allocated())
            raise torch.OutOfMemoryError("CUDA out of memory, on purpose")
        return forward(self, images, *needs)

    monkeypatch.setattr(Network, "forward", limited)
    said, executor = [], Serial(Progress(), lambda: False)
    gc.collect()
    before = torch.cuda.memory_allocated()

    def job(cells):
        free.append(torch.cuda.memory_allocated())
        return on_gpu(lab, list(cells))

    with Locks(lab.folder / "locks", lambda cells: cells) as held:
        done = list(train(form_cohorts(cells, {}), job, held, executor, lab.work, said.append, lambda: False))
    assert [result.row["status"] for each in done for result in each.results] == ["ok"] * 4
    assert "out of memory with 4 students" in said[0]
    assert sizes[0] > free[1]
    assert free[1] <= before + 2**20


def test_evaluation_is_fp32_whatever_trained_it():
    from kdbench import models
    from kdbench.metrics import predictions
    from kdbench.models.wrapper import to_device
    from kdbench.utils.precision import computing

    net = Network(models.create("resnet8", 10).eval(), (0.5,) * 3, (0.25,) * 3).eval()
    images = torch.rand(64, 3, 32, 32)
    with torch.no_grad():
        expected = net.double()(images.double()).logits
    to_device(net.float(), CUDA)

    class Feed:
        def plain(self, size):
            yield None, None, images.cuda()

    with computing(CUDA, "tf32"):
        logits = predictions(lambda x: net(x).logits, Feed())
    assert (logits.cpu().double() - expected).norm() < 1e-5 * expected.norm()
