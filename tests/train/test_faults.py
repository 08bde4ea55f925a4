"""A faulty method is closed with its reason, and its neighbours go on as if alone."""

import dataclasses
import math
import re

import pytest
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.train import cohort
from kdbench.utils.state_dicts import weights_digest


def _raise(*args):
    raise ValueError("on purpose")


FAULTS = {
    "build raises": ({"build": _raise}, "error", r"faulty failed in build: ValueError: on purpose \(traceback in "),
    "build returns nothing": ({"build": lambda s, c: None}, "error", r"faulty\.build must return a torch\.nn\.Module"),
    "skip raises": ({"skip": _raise}, "error", "failed in build: ValueError"),
    "prepare raises": ({"prepare": _raise}, "error", "faulty failed in build: ValueError"),
    "loss raises": ({"loss": _raise}, "error", r"faulty failed in a training step: ValueError: on purpose"),
    "update raises": ({"update": _raise}, "error", "faulty failed in a training step: ValueError"),
    "predict raises": ({"predict": _raise}, "error", "faulty failed in evaluation: ValueError"),
    "loss returns nothing": ({"loss": lambda *a: None}, "error", "a dict of named scalar tensors, got None"),
    "loss is empty": ({"loss": lambda *a: {}}, "error", "must return a dict of named scalar tensors"),
    "only private terms": ({"loss": lambda s, b, x, *a: {"_x": x.logits.sum()}}, "error", "dict of named scalar"),
    "a term is a vector": (
        {"loss": lambda s, b, x, *a: {"ce": x.logits.sum(1)}}, "error", r"'ce' must be a 0-dim tensor, got \(16,\)",
    ),
    "a term is a number": ({"loss": lambda *a: {"ce": 1.0}}, "error", "'ce' must be a 0-dim tensor, got float"),
    "no gradient": ({"loss": lambda s, b, x, *a: {"ce": x.logits.sum().detach()}}, "error", "training step"),
    "loss is nan": ({"loss": lambda s, b, x, *a: {"ce": x.logits.sum() * math.nan}}, "diverged", "loss became nan"),
    "loss is inf": ({"loss": lambda s, b, x, *a: {"ce": x.logits.sum() * math.inf}}, "diverged", "in epoch 1"),
    "an undeclared need": (
        {"loss": lambda s, b, x, *a: {"ce": x.embedding.sum()}}, "error", "faulty: the method reads 'embedding'",
    ),
    "predict of a wrong shape": ({"predict": lambda s, x, m: x.logits[:, :2]}, "error", r"\[24, 4\]"),
    "predict of more classes": ({"predict": lambda s, x, m: x.logits.repeat(1, 2)}, "error", r"\[24, 4\]"),
    "predict returns nothing": ({"predict": lambda s, x, m: None}, "error", "predict|evaluation"),
    "predict is nan": ({"predict": lambda s, x, m: x.logits * math.nan}, "diverged", "not finite"),
}  # fmt: skip


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.fixture
def kd_alone(lab, known):
    """The hash of kd's student after one epoch without company."""
    if not known:
        student = lab.using(work="kd_alone", epochs=1).train("kd")["kd"].student
        known["kd"] = weights_digest(student)
    return known["kd"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_method_is_closed_and_others_go_on(lab, kd_alone, fault):
    members, status, message = FAULTS[fault]

    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(type("Faulty", (Method,), {"loss": loss, "__module__": __name__, **members}))
    lab = lab.using(epochs=1)
    results = lab.train("faulty", "kd")
    row = results["faulty"].row
    assert row["status"] == status
    assert re.search(message, row["error"]), row["error"]
    assert "\n" not in row["error"]
    assert results["faulty"].student == {}
    assert results["kd"].row["status"] == "ok"
    assert row["cohort_size"] == 2
    assert weights_digest(results["kd"].student) == kd_alone


def test_a_prediction_that_fails_on_one_image_costs_its_macs_alone(lab):
    """As `squeeze` does; the accuracy is measured on batches."""

    def predict(self, student, modules):
        return student.logits if len(student.logits) > 1 else _raise()

    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(type("Single", (Method,), {"loss": loss, "predict": predict, "__module__": __name__}))
    results = lab.using(epochs=1).train("single", "kd")
    assert {name: result.row["status"] for name, result in results.items()} == {"single": "ok", "kd": "ok"}
    assert results["single"].row["macs"] is None
    assert results["kd"].row["macs"] > 0


def test_an_error_after_training_costs_one_cell(lab, monkeypatch):
    result_of = cohort.result_of

    def failing(trainee, *args):
        return _raise() if trainee.cell.method == "ce" else result_of(trainee, *args)

    monkeypatch.setattr(cohort, "result_of", failing)
    results = lab.using(epochs=1).train("ce", "kd")
    assert results["kd"].row["status"] == "ok"
    assert results["ce"].row["status"] == "error"
    assert "ce failed in its measurements: ValueError: on purpose" in results["ce"].row["error"]


def test_a_traceback_is_kept_where_the_row_says(lab):
    registry.register(type("Faulty", (Method,), {"loss": _raise, "__module__": __name__}))
    error = lab.train("faulty")["faulty"].row["error"]
    file = error.split("traceback in ")[1].rstrip(")")
    with open(file) as text:
        assert "in _raise" in text.read()


def test_data_of_another_size_than_the_suite_says_is_refused(lab):
    """Else methods would build for maps of the wrong size, under the id of the right one."""
    spec = dataclasses.replace(lab.suite.dataset, size=32)
    with pytest.raises(KdbenchError, match=r"tiny.*8.*32|tiny.*32.*8"):
        load_split(spec, "test", lab.data)
