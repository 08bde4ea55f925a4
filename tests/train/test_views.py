"""The recipe's ``train_views``: a one-view method trained on several views, as two-view methods are."""

import dataclasses

import pytest
import torch

from kdbench import suites
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.registry import register

BOTH = ("weak", "strong")


def test_kd_on_both_views_is_the_two_view_control_bit_for_bit(lab):
    """kd_twoview writes the sum of kd's loss over two views by hand."""
    lab = lab.using(train_views=BOTH)
    results = lab.train("kd", "kd_twoview")
    kd, control = results["kd"], results["kd_twoview"]
    assert all(torch.equal(kd.student[name], control.student[name]) for name in control.student)
    assert kd.row["top1"] == control.row["top1"]


def test_a_two_view_method_does_not_heed_it(lab):
    plain, both = lab.using(work="a"), lab.using(work="b", train_views=BOTH)
    one, other = plain.train("mlkd")["mlkd"], both.train("mlkd")["mlkd"]
    assert all(torch.equal(one.student[name], other.student[name]) for name in one.student)


def test_a_single_train_view_replaces_the_methods_own(lab):
    """And so it does in the teacher's images: kd on the strong view alone is neither kd nor kd on both."""
    students = [
        lab.using(work=str(n), train_views=views).train("kd")["kd"].student["fc.weight"]
        for n, views in enumerate([(), ("strong",), BOTH, ("weak",)])
    ]
    plain, strong, both, weak = students
    assert torch.equal(plain, weak)
    assert not torch.equal(plain, strong)
    assert not torch.equal(strong, both)


class Diarist(Method):
    """Each call of `update` belongs to the `loss` call of its own view."""

    def build(self, context):
        modules = torch.nn.Module()
        modules.register_buffer("calls", torch.zeros(()))
        modules.weight = torch.nn.Parameter(torch.ones(()))
        return modules

    def loss(self, batch, student, teacher, modules):
        value = (modules.weight * student.logits).square().mean()
        return {"own": value, "_own": value}

    def update(self, batch, student, teacher, modules, terms):
        expected = (modules.weight * student.logits).square().mean().detach()
        assert torch.equal(terms["_own"], expected)
        modules.calls += 1
        assert modules.calls <= 8  # two epochs of two steps of two views


def test_update_is_called_once_a_view_with_its_own_terms(lab, scratch_registry):
    register(Diarist)
    result = lab.using(train_views=BOTH, batch_size=32).train("diarist")["diarist"]
    assert result.row["status"] == "ok", result.row["error"]


def test_an_unknown_train_view_is_told(lab):
    file = lab.suite_file(("eval_every = 1", 'eval_every = 1\ntrain_views = ["weak", "storng"]'))
    with pytest.raises(KdbenchError, match="unknown view 'storng'"):
        suites.load(str(file))


def test_the_ids_tell_the_views(lab):
    one, both = lab.cells("kd")[0], lab.using(train_views=BOTH).cells("kd")[0]
    assert one.id != both.id
    assert set(one.identity()["views"]) == {"weak"}
    assert set(both.identity()["views"]) == set(BOTH)
    assert "train_views" not in one.recipe.identity()
    mlkd = dataclasses.replace(lab.cells("mlkd")[0])
    assert set(mlkd.identity()["views"]) == set(BOTH)
