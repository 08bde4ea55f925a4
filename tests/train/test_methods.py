"""What the cohort loop does with a method, good or faulty: its members, its curves and its row."""

import dataclasses
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench import models, registry
from kdbench.method import Method, Needs
from kdbench.train.cohort import train_cohort
from tests.support.loops import After, same, state_of

# --- rows and curves ---


def test_curves_have_all_terms_of_all_epochs_and_sum_to_loss(lab):
    result = lab.using(epochs=5, eval_every=2).train("kd")["kd"]
    table = {}
    for epoch, term, value in result.curves:
        assert (epoch, term) not in table
        table[epoch, term] = value
    terms = ("loss", "loss_ce", "loss_kd", "train_top1")
    assert set(table) == {(e, t) for e in range(1, 6) for t in terms} | {(e, "top1") for e in (2, 4, 5)}
    for epoch in range(1, 6):
        assert table[epoch, "loss"] == pytest.approx(
            table[epoch, "loss_ce"] + table[epoch, "loss_kd"], rel=1e-5
        )
    row = result.row
    assert row["top1"] == table[5, "top1"]
    assert row["top1_best"] == max(table[e, "top1"] for e in (2, 4, 5))
    assert row["final_loss"] == table[5, "loss"]
    assert row["train_top1"] == table[5, "train_top1"]


def test_the_row_is_the_returned_students_own(lab):
    """The weights in a bare timm model, its accuracy counted by a loop, its size by hand."""
    result = lab.train("kd")["kd"]
    spec, split = lab.suite.models["student"], lab.split
    net = models.create(spec.arch, 4, **spec.args)
    net.load_state_dict(result.student)
    net.eval()
    right = 0
    for image, target in zip(split.evaluation.images, split.evaluation.targets, strict=True):
        with torch.no_grad():
            logits = net((image.permute(2, 0, 1)[None].float() / 255 - 0.4) / 0.3)
        right += int(logits.argmax() == target)
    assert result.row["top1"] == pytest.approx(100 * right / 24, abs=1e-4)
    assert result.row["student_params"] == sum(p.numel() for p in net.parameters())
    assert result.row["macs"] == models.macs(net, 8)
    assert result.details["confusion"].sum() == 24
    assert np.trace(result.details["confusion"]) == right


def test_it_learns(lab):
    row = lab.using(epochs=20).train("ce")["ce"].row
    assert row["train_top1"] > 60
    assert row["top1"] > 40  # chance is 25


def test_a_teacherless_cell_has_no_teacher_columns(lab):
    together = lab.train("ce", "kd")
    assert {"agree_teacher", "kl_teacher"} <= set(together["kd"].row)
    assert not {"agree_teacher", "kl_teacher"} & set(together["ce"].row)
    assert "teacher_class_means" not in together["ce"].details


def test_times_of_a_cell_go_on_after_a_stop(lab):
    (cell,) = lab.cells("kd")
    (first,), _ = train_cohort(lab.job([cell]), stop=After(6))
    (second,), _ = train_cohort(lab.job([cell]))
    assert 0 < first.row["train_s"] < second.row["train_s"]
    assert 0 < first.row["eval_s"] < second.row["eval_s"]
    assert second.row["img_per_s"] == pytest.approx(128 / second.row["train_s"])


def test_train_s_is_the_cells_own_time_alone(lab):
    """A slow neighbour does not make a method slow."""

    class Sleeper(Method):
        def loss(self, batch, student, teacher, modules):
            time.sleep(0.03)
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Sleeper)
    rows = {name: result.row for name, result in lab.train("kd", "sleeper").items()}
    assert rows["sleeper"]["train_s"] >= 8 * 0.03
    assert rows["kd"]["train_s"] < rows["sleeper"]["train_s"] - 0.1
    assert {row["cohort_size"] for row in rows.values()} == {2}


def test_extra_parameters_count_where_they_stay(lab):
    class Extra(Method):
        def build(self, context):
            return nn.Linear(4, 4)

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(modules(student.logits), batch.target)}

    class Keeps(Extra):
        keeps_modules: ClassVar[bool] = True

        def predict(self, student, modules):
            return modules(student.logits)

    registry.register(Extra)
    registry.register(Keeps)
    rows = {name: result.row for name, result in lab.train("ce", "extra", "keeps").items()}
    bare = rows["ce"]["student_params"]
    counts = {name: (row["student_params"] - bare, row["extra_params"]) for name, row in rows.items()}
    assert counts == {"ce": (0, 0), "extra": (0, 20), "keeps": (20, 0)}
    assert rows["keeps"]["top1"] is not None


# --- the rest of the interface ---


def test_prepare_draws_from_the_cells_own_generator(lab):
    drawn = []

    class Draws(Method):
        def prepare(self, context, teacher_batches, modules):
            drawn.append([torch.rand(2, generator=batch.generator) for batch, _ in teacher_batches])

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Draws)
    (cell,) = lab.cells("draws")
    for place, seed in enumerate((0, 1, 0)):
        train_cohort(lab.using(work=str(place)).job([dataclasses.replace(cell, seed=seed)]))
    first, other, again = (torch.stack(each) for each in drawn)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == first.numel()  # another draw for each batch


def test_prepare_sees_the_plain_train_set_in_order_each_pass(lab):
    passes = []

    class Looks(Method):
        needs: ClassVar[Needs] = Needs(index=True)

        def prepare(self, context, teacher_batches, modules):
            for _ in range(2):
                batches = list(teacher_batches)
                passes.append(
                    (
                        torch.cat([batch.index for batch, _ in batches]),
                        torch.cat([batch.target for batch, _ in batches]),
                        torch.cat([teacher.logits for _, teacher in batches]),
                        [batch.last for batch, _ in batches],
                    )
                )

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Looks)
    lab.train("looks")
    assert same(passes[0], passes[1])
    index, target, logits, last = passes[0]
    train = lab.split.train
    assert index.tolist() == list(range(64))
    assert torch.equal(target, train.targets)
    assert last == [False, False, False, True]
    with torch.no_grad():
        pixels = train.images.permute(0, 3, 1, 2).float() / 255
        expected = lab.teacher.net(lab.suite.dataset)(pixels).logits
    assert torch.allclose(logits, expected, atol=1e-5)


def test_private_terms_reach_update_detached_and_are_not_summed(lab):
    handed = []

    class Private(Method):
        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits, batch.target), "_logits": student.logits * 1e6}

        def update(self, batch, student, teacher, modules, terms):
            handed.append((set(terms), [t.requires_grad for t in terms.values()], torch.is_grad_enabled()))

    registry.register(Private)
    results = lab.train("ce", "private")
    assert handed == [({"ce", "_logits"}, [False, False], False)] * 8
    assert same(results["private"].student, results["ce"].student)
    assert {term for _, term, _ in results["private"].curves} == {"loss", "loss_ce", "train_top1", "top1"}


def test_only_parameters_with_a_gradient_are_decayed(lab):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle, self.busy = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    class Idle(Method):
        def build(self, context):
            return Two()

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits * modules.busy, batch.target)}

    registry.register(Idle)
    lab = lab.using(weight_decay=0.1)
    lab.train("idle")
    modules = state_of(lab, lab.cells("idle")[0])["modules"]
    assert torch.equal(modules["idle"], torch.ones(4))
    assert (modules["busy"] != 1).all()


def test_build_draws_from_the_cells_stream(lab):
    """The same random projector alone and in company, another with another seed."""

    class Draws(Method):
        def build(self, context):
            return nn.ParameterDict({"w": torch.randn(4)})

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Draws)
    found = []
    for number, (names, seed) in enumerate(((["draws"], 0), (["mlkd", "draws"], 0), (["draws"], 1))):
        other = lab.using(work=f"w{number}")
        cells = [dataclasses.replace(cell, seed=seed) for cell in other.cells(*names)]
        other.run(cells)
        found.append(state_of(other, cells[-1])["modules"]["w"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_skips_are_recorded_with_their_reason(lab):
    class Picky(Method):
        def skip(self, context):
            return f"needs 100 channels, the student has {context.student.feature_channels}"

    class Many(Method):
        min_classes: ClassVar[int] = 10

    class Negative(Method):
        needs: ClassVar[Needs] = Needs(preact=True)

    for cls in (Picky, Many, Negative):
        registry.register(cls)
    spec = {"arch": "resnet10t", "args": {}}
    lab.suite = dataclasses.replace(
        lab.suite, models={**lab.suite.models, "foreign": type(lab.suite.models["student"])(**spec)}
    )
    rows = {name: r.row for name, r in lab.train("picky", "many", "ce").items()}
    assert rows["picky"] == {
        "status": "skipped", "error": "needs 100 channels, the student has 8", "epochs_done": 0, "cohort_size": 3,
    }  # fmt: skip
    assert (rows["many"]["status"], rows["many"]["error"]) == ("skipped", "many needs at least 10 classes")
    assert rows["ce"]["status"] == "ok"
    (row,) = (r.row for r in lab.train("negative", student="foreign").values())
    assert (row["status"], row["error"]) == ("skipped", "the student has no pre-activation stages")


@pytest.mark.parametrize(("batch_size", "largest"), [(16, 16), (500, 64)])
def test_a_batch_that_never_comes_is_a_reason_to_skip(lab, batch_size, largest):
    """64 images: a method of 64 trains where the batch holds them; one of more than the largest batch has no step."""

    class Whole(Method):
        min_batch: ClassVar[int] = largest + 1

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits, batch.target)}

    class Fits(Whole):
        min_batch: ClassVar[int] = largest

    registry.register(Whole)
    registry.register(Fits)
    rows = {name: r.row for name, r in lab.using(batch_size=batch_size).train("whole", "fits").items()}
    expected = f"whole needs batches of at least {largest + 1} images; the largest here is {largest}"
    assert (rows["whole"]["status"], rows["whole"]["error"]) == ("skipped", expected)
    assert rows["fits"]["status"] == "ok"
