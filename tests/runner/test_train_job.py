"""A job where it trains: out of memory, and a GPU that fails."""

import weakref

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.runner.executors import base
from kdbench.train.callbacks import Progress


def test_out_of_memory_frees_the_cohort_before_the_cache(lab, monkeypatch):
    """A cohort refers to itself: it lives until it is collected, and the memory that it holds is no cache."""
    cohorts, alive = [], []

    class Cohort:
        def __init__(self):
            self.self = self

    def train(job, progress, stop):
        cohort = Cohort()
        cohorts.append(weakref.ref(cohort))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(base, "train_cohort", train)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(cohorts[0]()))
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory\. Tried to allocate 2 GiB$"):
        base.train_job(lab.job(lab.cells("kd")), Progress(), lambda: False)
    assert alive == [None]


def test_a_gpu_that_fails_is_one_sentence_and_no_cells_fault(lab, scratch_registry):
    """After a device-side assert every call on the GPU raises: no other cell may be blamed."""

    class Broken(Method):
        def loss(self, batch, student, teacher, modules):
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\nmore")

    scratch_registry.register(Broken)
    with pytest.raises(
        KdbenchError, match=r"^cpu failed while it trained kd, broken: CUDA error: device-side"
    ):
        base.train_job(lab.job(lab.cells("kd", "broken")), Progress(), lambda: False)
