"""`teachers cache` by the executors that train."""

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.runner.fill_cache import fill_cache
from kdbench.runner.run import resolve
from kdbench.train.callbacks import Progress
from tests.support.cli_process import kdbench


@pytest.mark.slow
def test_another_process_fills_the_same_bits(lab):
    lab.suite_file()
    usual = ("--suite", "tiny.toml", "--data-dir", "data")
    assert kdbench("teachers", "train", *usual, cwd=lab.folder).code == 0
    for executor in ("serial", "processes"):
        to = ("--executor", executor, "--teacher-cache", executor)
        filled = kdbench("teachers", "cache", *usual, *to, cwd=lab.folder)
        assert filled.code == 0, filled.err
        assert "view weak: 100.0% of" in filled.err
    (here,), (there,) = ((lab.folder / name).iterdir() for name in ("serial", "processes"))
    assert here.read_bytes() == there.read_bytes()


def test_slurm_is_refused_with_the_way_out(lab):
    pytest.importorskip("submitit")
    with pytest.raises(KdbenchError, match="sbatch --wrap"):
        fill_cache(*chosen(lab, executor="slurm"), Progress())


def test_a_teacher_that_fails_is_named(lab, teacher_state, monkeypatch, messages):
    """The exit code says so too: a job that came back without its table is no success."""

    def no_memory(job, progress, stop):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("kdbench.runner.executors.base.fill_cache", no_memory)
    (lab.folder / "given").mkdir()
    torch.save(teacher_state, lab.folder / "given" / "teacher.pth")
    progress = Progress()
    progress.warn = messages.append
    assert fill_cache(*chosen(lab, teacher_weights=lab.folder / "given"), progress) == 3
    assert messages == ["the logits of teacher are not complete: CUDA out of memory"]


def chosen(lab, **options):
    """The selection and options of `kdbench teachers cache` on the laboratory's suite."""
    usual = {"data_dir": lab.data, "results": lab.folder / "results", "device": "cpu"}
    return resolve(lab.suite_file(), ["kd"], teacher_cache=lab.folder / "cache", **(usual | options))
