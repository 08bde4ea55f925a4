"""The recipe's ``train_views``: a one-view method trained on several views, as two-view methods are."""

import dataclasses
from typing import ClassVar

import pytest
import torch

from kdbench import suites
from kdbench.data.batches import Resident
from kdbench.errors import KdbenchError
from kdbench.method import Method, Needs
from kdbench.models.wrapper import to_device
from kdbench.registry import register
from kdbench.suites.schema import View, find_view

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


@pytest.fixture
def passes(lab):
    """What `prepare` reads of three passes over all views and of both kinds with gradients enabled."""
    passes: list = []

    class Turned(Method):
        """Reads the teacher on a turned view and on the view itself, in training and in `prepare`."""

        needs: ClassVar[Needs] = Needs(views=("weak@1", "weak"), index=True)

        def prepare(self, context, teacher_batches, modules):
            for number in (0, 0, 1):
                passes.append([(b, t.logits, t["weak"].logits) for b, t in teacher_batches.epoch(number)])
            with torch.enable_grad():  # neither pass has a graph, whatever is enabled around it
                passes.append(
                    [(b, t.logits, t.logits) for b, t in (*teacher_batches, *teacher_batches.epoch(2))]
                )

        def loss(self, batch, student, teacher, modules):
            return {"all": (student.logits - teacher.logits + student["weak"].logits).square().mean()}

    register(Turned)
    lab.train("turned")
    return passes


def test_prepare_reads_passes_over_all_views(lab, passes):
    """In random order, as augmented as in training; the same number is the same pass, another one another."""
    first, again, other, whole = passes
    index = [torch.cat([batch.index for batch, _, _ in each]) for each in (first, again, other)]
    assert torch.equal(index[0], index[1])
    assert not torch.equal(index[0], index[2])
    assert index[0].tolist() != sorted(index[0].tolist()) == list(range(64))
    assert [batch.last for batch, _, _ in first] == [False, False, False, True]
    targets = lab.split.train.targets
    assert all(torch.equal(batch.target, targets[batch.index]) for batch, _, _ in first)
    for (_, *one), (_, *two) in zip(first, again, strict=True):
        assert all(map(torch.equal, one, two))
    assert not any(logits.requires_grad for _, *both in whole for logits in both)


def test_views_of_prepare_are_the_suites_views(lab, passes):
    """The teacher's logits on images that are rendered here from the pass's own draws."""
    (cell,) = lab.cells("turned")
    views = {name: cell.view(name) for name in ("weak@1", "weak")}
    feed = Resident(lab.split.train, torch.device("cpu"))
    teacher = to_device(lab.teacher.net(lab.suite.dataset), torch.device("cpu"))
    rendered = feed.epoch(views, (cell.split_id, cell.seed, "prepare 1"), cell.recipe.batch_size)
    for fed, (batch, turned, weak) in zip(rendered, passes[2], strict=True):
        assert torch.equal(fed.images["weak@1"], fed.images["weak"].rot90(1, (2, 3)))
        assert torch.equal(fed.index, batch.index)
        with torch.no_grad():
            assert torch.equal(teacher(fed.images["weak@1"], Needs()).logits, turned)
            assert torch.equal(teacher(fed.images["weak"], Needs()).logits, weak)


def test_names_of_turned_views(lab):
    views = lab.suite.views
    assert find_view(views, "weak") is views["weak"]
    assert find_view(views, "strong@3") == dataclasses.replace(views["strong"], turn=3)
    assert find_view({"odd": View(turn=3)}, "odd@2") == View(turn=1)
    for name in ("weak@0", "weak@4", "weak@", "weak@1@1", "@1", "other@1", "weak@x"):
        assert find_view(views, name) is None, name
    with pytest.raises(KdbenchError, match=r"turn is a number of quarter turns in 0\.\.3, got 4"):
        View(turn=4)


def test_a_recipe_may_train_on_turned_views(lab):
    plain, turned = (
        lab.using(work=str(n), train_views=views).train("kd")["kd"].student["fc.weight"]
        for n, views in enumerate([("weak",), ("weak", "weak@2")])
    )
    assert not torch.equal(plain, turned)


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
