"""Recorded steps: on any machine their buffers and bookkeeping, on a CUDA device the graphs themselves."""

import dataclasses

import pytest
import torch

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Outputs
from kdbench.train import cuda_graphs
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from kdbench.train.cuda_graphs import Recorded, RecordedForward, RecordedStep
from kdbench.utils.precision import autocast, check, tensor_cores

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def replayed(function, generators):
    """A recorder for any device: what it replays is the function itself, on the fixed buffers."""
    return function


def test_a_call_reads_only_buffers_and_copies_nested_tensors():
    generator = torch.Generator()

    def inputs(value):
        return (
            Batch(
                torch.full((2,), int(value)),
                1.0,
                False,
                torch.tensor(value),
                generator,
                torch.ones(2) * value,
            ),
            {"b": torch.ones(3) * value, "a": torch.ones(1) * value},
            {"v": Outputs(torch.ones(2) * value, stages=(torch.ones(1) * value, torch.ones(2) * value))},
        )

    def total(batch, images, outputs):
        o = outputs["v"]
        parts = [batch.target, batch.progress, batch.index, *images.values(), o.logits, *o.stages]
        assert o.embedding is None
        assert batch.generator is generator
        return sum(part.sum() for part in parts)

    first = inputs(1.0)
    run = Recorded(total, first, replayed)
    for tensor in cuda_graphs._tensors(first):
        tensor.fill_(99)
    assert run(*inputs(1.0)) == 2 + 1 + 2 + 3 + 1 + 2 + 1 + 2
    assert run(*inputs(2.0)) == 2 * 14


def test_a_forward_is_recorded_once_a_shape_and_need():
    made = []

    def record(function, generators):
        made.append(function)
        return function

    forward = RecordedForward(lambda x, needs: Outputs(x * needs), record)
    for _ in range(5):
        for shape, needs in (((2,), 1), ((2,), 2), ((1,), 1)):
            x = torch.rand(shape)
            assert torch.equal(forward(x, needs).logits, x * needs)
    assert len(made) == 3


@pytest.mark.parametrize("method", ["ce", "kd", "ctkd", "crd", "dkl", "mlkd"])
def test_recorded_training_is_eager_training(lab, monkeypatch, method):
    """The bookkeeping, with the function in the graph's place: sums, rates, epochs, the last batch, the row."""
    lab = lab.using(epochs=3, batch_size=12, schedule="onecycle")
    (cell,) = lab.cells(method)
    eager = train_cohort(lab.job([cell]))[0][0]
    made = []

    def record(function, generators):
        made.append(len(generators))
        return function

    monkeypatch.setattr(RecordedStep, "__init__", _recording_with(record, RecordedStep.__init__))
    job = dataclasses.replace(lab.using(work="r").job([cell]), graphs=True)
    monkeypatch.setattr("kdbench.train.teacher_outputs.RecordedForward", lambda f: RecordedForward(f, record))
    fast = train_cohort(job)[0][0]
    assert made.count(1) == 3  # one recording an epoch
    assert eager.row["status"] == fast.row["status"] == "ok"
    for name, value in eager.student.items():
        assert torch.allclose(fast.student[name].float(), value.float(), atol=1e-5), name
    assert [c[:2] for c in eager.curves] == [c[:2] for c in fast.curves]
    for one, other in zip(eager.curves, fast.curves, strict=True):
        assert one[2] == pytest.approx(other[2], abs=1e-3)


def _recording_with(record, build):
    def init(self, trainee):
        build(self, trainee, record)

    return init


def test_graphs_and_tf32_need_a_cuda_device(lab):
    with pytest.raises(KdbenchError, match="--graphs needs a CUDA device"):
        lab.open(graphs=True)
    with pytest.raises(KdbenchError, match="tf32 needs a CUDA device"):
        lab.open(precision="tf32")
    check("tf32", True, "cuda:0")


def test_tensor_cores_only_where_the_recipe_says_so():
    before = torch.backends.cudnn.allow_tf32
    for precision, expected in (("tf32", True), ("fp32", False), ("bf16", False)):
        with tensor_cores(precision):
            assert torch.backends.cudnn.allow_tf32 is expected
            assert torch.backends.cuda.matmul.allow_tf32 is expected
            with autocast(precision, torch.device("cpu")):
                assert torch.is_autocast_enabled("cpu") is (precision == "bf16")
    assert torch.backends.cudnn.allow_tf32 == before


# --- on a CUDA device ---


def on_gpu(lab, cells, **changes):
    return dataclasses.replace(lab.job(cells), device="cuda:0", **changes)


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


@gpu
@needs_gpu
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


@gpu
@needs_gpu
@pytest.mark.parametrize("method", _methods())
def test_graphs_compute_what_eager_steps_compute(lab, method):
    lab = lab.using(epochs=3, batch_size=12)
    cells = lab.cells(method)
    eager = train_cohort(on_gpu(lab.using(work="e"), cells))[0][0]
    fast = train_cohort(on_gpu(lab.using(work="g"), cells, graphs=True))[0][0]
    assert eager.row["status"] == fast.row["status"], fast.row["error"]
    for name, value in eager.student.items():
        assert torch.allclose(fast.student[name].float(), value.float(), atol=1e-3), name


@gpu
@needs_gpu
def test_the_device_agrees_with_the_cpu(lab):
    (cell,) = lab.cells("kd")
    here = train_cohort(lab.job([cell]))[0][0]
    there = train_cohort(on_gpu(lab.using(work="g"), [cell]))[0][0]
    for name, value in here.student.items():
        assert torch.allclose(there.student[name].float(), value.float(), atol=1e-2), name
