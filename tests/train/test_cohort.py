"""The cohort loop on 64 images: against a plain loop, and each cell alone and in company."""

import dataclasses
import gc
import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench import models, registry
from kdbench.method import Method, Needs
from kdbench.suites.schema import View
from kdbench.train import job
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from kdbench.utils.rng import generator as generator_
from kdbench.utils.rng import stream
from tests.support.loops import same, state_of

# --- the oracle: a plain loop ---


def plain_loop(lab, cell, loss):
    """The student's state dict after the cell's recipe, by a loop that shares no training code with kdbench.

    SGD by its definition: g += wd w; v = momentum v + g; w -= lr v.
    """
    split, recipe = lab.split, cell.recipe
    torch.manual_seed(stream("init", split.id, cell.seed, cell.student))
    net = models.create(cell.student_model.arch, 4, **cell.student_model.args)
    teacher = lab.teacher.net(lab.suite.dataset).model
    pixels = (split.train.images.permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.3
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    net.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(64, generator=generator_("order", split.id, cell.seed, epoch))
        rate = recipe.lr * 0.1 ** sum(epoch * 240 / recipe.epochs >= m for m in recipe.milestones)
        for start in range(0, 64, recipe.batch_size):
            rows = order[start : start + recipe.batch_size]
            with torch.no_grad():
                wanted = teacher(pixels[rows])
            net.zero_grad()
            loss(net(pixels[rows]), wanted, split.train.targets[rows]).backward()
            with torch.no_grad():
                for name, p in net.named_parameters():
                    velocity[name].mul_(recipe.momentum).add_(p.grad + recipe.weight_decay * p)
                    p -= rate * velocity[name]
    return net.state_dict()


def hinton(student, teacher, target):
    p = (teacher / 4).softmax(1)
    divergence = (p * (p.log() - (student / 4).log_softmax(1))).sum(1).mean()
    return 0.1 * cross_entropy(student, target) + 0.9 * 16 * divergence


@pytest.mark.parametrize(("method", "loss"), [("ce", lambda s, t, y: cross_entropy(s, y)), ("kd", hinton)])
def test_training_is_a_plain_sgd_loop(lab, method, loss):
    """Two epochs at 0.05 and two at a tenth, the last batch a smaller one; weights and BatchNorm alike."""
    lab = lab.using(epochs=4, batch_size=24, milestones=(120,), weight_decay=5e-3)
    lab.suite = dataclasses.replace(lab.suite, views={"weak": View()})
    (cell,) = lab.cells(method)
    expected = plain_loop(lab, cell, loss)
    found = lab.run([cell])[method].student
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].float(), value.float(), rtol=0, atol=1e-6), name


def test_one_training_step_shows_in_the_weights(lab):
    """That the oracle's tolerance is no blanket: another seed, rate or decay is far outside of it."""
    base = lab.train("ce")["ce"].student["fc.weight"]
    for number, change in enumerate(
        ({"lr": 0.051}, {"weight_decay": 5e-3}, {"momentum": 0.8}, {"nesterov": True})
    ):
        other = lab.using(work=f"w{number}", **change).train("ce")["ce"].student["fc.weight"]
        assert (other - base).abs().max() > 1e-5, change


# --- what a method is handed ---


@pytest.fixture
def diary(lab):
    """Methods that write down what they see; ``diary[name]`` is a list of a dict a step."""
    seen = {}

    class Scribe(Method):
        needs: ClassVar[Needs] = Needs(teacher=False, index=True)

        def loss(self, batch, student, teacher, modules):
            seen.setdefault(self.name, []).append(
                {
                    "index": batch.index.clone(), "target": batch.target.clone(), "epoch": batch.epoch,
                    "last": batch.last, "progress": batch.progress.item(), "logits": student.logits.detach().clone(),
                    "draw": torch.rand(2, generator=batch.generator), "global": torch.rand(2),
                    "teacher": None if teacher is None else teacher.logits.clone(),
                }
            )  # fmt: skip
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Scribe)

    class Pupil(Scribe):
        needs: ClassVar[Needs] = Needs(index=True)

    class Squint(Scribe):
        needs: ClassVar[Needs] = Needs(views=("strong",), index=True)

    class Crowd(Scribe):
        min_batch: ClassVar[int] = 5

    for cls in (Pupil, Squint, Crowd):
        registry.register(cls)
    return seen


def test_batches_hold_each_sample_once_in_the_order_stream(lab, diary):
    lab.train("scribe")
    split, steps = lab.split, diary["scribe"]
    for epoch in range(2):
        rows = torch.cat([s["index"] for s in steps[4 * epoch : 4 * epoch + 4]])
        generator = generator_("order", split.id, 0, epoch)
        assert rows.tolist() == torch.randperm(64, generator=generator).tolist()
    for step in steps:
        assert torch.equal(step["target"], split.train.targets[step["index"]])


def test_epoch_progress_and_last_by_hand(lab, diary):
    """2 epochs of 4 steps, 240 reference epochs."""
    lab.train("scribe")
    assert [s["epoch"] for s in diary["scribe"]] == [120.0] * 4 + [240.0] * 4
    assert [s["progress"] for s in diary["scribe"]] == [k / 8 for k in range(8)]
    assert [s["last"] for s in diary["scribe"]] == [False, False, False, True] * 2


@pytest.mark.parametrize(
    "company", [("pupil",), ("pupil", "mlkd"), ("squint", "pupil"), ("ce", "dkd", "pupil")]
)
def test_what_a_cell_sees_does_not_depend_on_its_company(lab, diary, company):
    """Batches, initial weights, outputs of student and teacher, both random streams: to the last bit."""
    lab.train("pupil")
    alone = diary.pop("pupil")
    lab.using(work="crowd").train(*company)
    assert same(diary["pupil"], alone)


def test_a_method_sees_its_first_view_whoever_is_beside_it(lab, diary):
    """The teacher's forward serves the union of all views: whose first is another method's."""
    lab.train("squint")
    alone = diary.pop("squint")
    lab.using(work="crowd").train("pupil", "squint")
    assert same(diary["squint"], alone)
    strong, weak = diary["squint"][0], diary["pupil"][0]
    assert torch.equal(strong["index"], weak["index"])
    assert not torch.equal(strong["teacher"], weak["teacher"])
    assert not torch.equal(strong["logits"], weak["logits"])


def test_all_methods_start_from_equal_weights_and_batches(lab, diary):
    lab.train("scribe", "pupil", "crowd")
    first = [diary[name][0] for name in ("scribe", "pupil", "crowd")]
    for key in ("index", "logits", "draw", "global"):
        assert torch.equal(first[0][key], first[1][key])
        assert torch.equal(first[0][key], first[2][key])


@pytest.mark.parametrize("what", ["seed", "data"])
def test_another_seed_and_other_data_are_other_streams(lab, diary, what, monkeypatch):
    (cell,) = lab.cells("scribe")
    lab.run([cell])
    before = diary.pop("scribe")
    if what == "seed":
        lab.run([dataclasses.replace(cell, seed=1)])
    else:
        monkeypatch.setattr(job, "load_split", lambda *spec: dataclasses.replace(lab.split, id="other"))
        lab.run([dataclasses.replace(cell, split_id="other")])
    after = diary["scribe"]
    for key in ("index", "logits", "draw", "global"):
        assert not torch.equal(before[0][key], after[0][key])


def test_views_change_with_the_epoch(lab, diary):
    """lr so small that the student stands still: only the crop can change its logits."""
    lab.using(lr=1e-30, weight_decay=0.0, batch_size=64).train("pupil")
    one, two = diary["pupil"]
    back = two["index"].argsort()[one["index"]]
    assert torch.equal(two["index"][back], one["index"])
    assert not torch.allclose(two["teacher"][back], one["teacher"])


def test_the_ambient_random_state_has_no_part(lab, diary):
    for seed in (1, 2):
        torch.manual_seed(seed)
        lab.using(work=f"w{seed}").train("scribe", student="dropper")
    assert same(diary["scribe"][:8], diary["scribe"][8:])


@pytest.mark.parametrize(("batch_size", "tail", "sizes"), [(20, 4, [20, 20, 20]), (19, 7, [19, 19, 19, 7])])
def test_a_last_batch_below_min_batch_is_dropped(lab, diary, batch_size, tail, sizes):
    """For the method that says so alone; its ``last`` comes one batch earlier then."""
    results = lab.using(batch_size=batch_size, epochs=1).train("scribe", "crowd")
    assert [len(s["index"]) for s in diary["crowd"]] == sizes
    assert [s["last"] for s in diary["crowd"]] == [False] * (len(sizes) - 1) + [True]
    assert [len(s["index"]) for s in diary["scribe"]] == [batch_size] * 3 + [tail]
    assert [s["last"] for s in diary["scribe"]] == [False] * 3 + [True]
    for name in ("scribe", "crowd"):  # means are over what was seen
        losses = [cross_entropy(s["logits"], s["target"], reduction="sum").item() for s in diary[name]]
        count = sum(len(s["index"]) for s in diary[name])
        curve = {term: value for _, term, value in results[name].curves}
        assert curve["loss"] == pytest.approx(sum(losses) / count, rel=1e-5)
        hits = sum((s["logits"].argmax(1) == s["target"]).sum().item() for s in diary[name])
        assert curve["train_top1"] == pytest.approx(100 * hits / count, rel=1e-6)


def test_a_single_last_sample_is_dropped_for_everyone(lab, diary):
    """BatchNorm cannot train on one."""
    lab.using(batch_size=21, epochs=1).train("scribe")
    assert [len(s["index"]) for s in diary["scribe"]] == [21, 21, 21]
    assert [s["last"] for s in diary["scribe"]] == [False, False, True]


# --- alone and in company ---


@pytest.mark.parametrize("student", ["student", "dropper"])
def test_a_cell_alone_is_the_cell_in_a_cohort_bit_for_bit(lab, student):
    """The second student drops units: each cell has a random stream of its own."""
    names = ("ce", "kd", "mlkd")
    cells = lab.cells(*names, student=student)
    together = lab.run(cells)
    for cell, name in zip(cells, names, strict=True):
        apart = lab.using(work=name)
        alone = apart.run([cell])[name]
        assert same(alone.student, together[name].student), name
        assert same(alone.curves, together[name].curves)
        assert alone.row["top1"] == together[name].row["top1"]
        assert same(state_of(apart, cell), state_of(lab, cell))


def test_the_dropper_drops(lab, diary):
    """Else the test above would show less than it says."""
    spec = lab.suite.models["dropper"]
    lab.train("scribe", student="dropper")
    dropping = diary.pop("scribe")[0]["logits"]
    still = dataclasses.replace(spec, args={**spec.args, "drop_rate": 0.0})
    lab.suite = dataclasses.replace(lab.suite, models={**lab.suite.models, "dropper": still})
    lab.train("scribe", student="dropper")
    assert not torch.equal(dropping, diary["scribe"][0]["logits"])


def test_two_students_and_two_rates_side_by_side(lab):
    cells = lab.cells("kd", recipe={"lr": 0.01}) + lab.cells("kd", student="resnet8", recipe={"lr": 0.1})
    together, _ = train_cohort(lab.job(cells))
    for number, cell in enumerate(cells):
        (alone,), _ = train_cohort(lab.using(work=f"alone{number}").job([cell]))
        assert same(alone.student, together[number].student)
    (slow,) = lab.using(work="slow").cells("kd", recipe={"lr": 0.01})
    assert slow.id == cells[0].id


def test_the_order_of_a_cohort_does_not_matter(lab):
    cells = lab.cells("kd", "ce", "dkd")
    forth, back = lab.run(cells), lab.using(work="back").run(cells[::-1])
    for name in ("kd", "ce", "dkd"):
        assert same(forth[name].student, back[name].student)


def test_how_often_is_measured_changes_nothing(lab):
    """eval_every is not in the id. The frozen part stands for any module that is in eval mode on purpose."""

    class Frozen(Method):
        def build(self, context):
            modules = nn.ModuleDict({"norm": nn.BatchNorm1d(4), "drop": nn.Dropout(0.5)})
            modules["norm"].eval()
            modules["norm"].requires_grad_(False)
            return modules

        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(modules["drop"](modules["norm"](student.logits)), batch.target)}

    registry.register(Frozen)
    often, once = (lab.using(work=f"w{n}", eval_every=n).train("frozen", "kd") for n in (1, 2))
    for name in ("kd", "frozen"):
        assert same(often[name].student, once[name].student), name


def test_a_cohort_that_has_ended_is_freed_at_once(lab):
    """Its networks, images and teacher must not wait for the garbage collector while the next one trains."""
    gc.disable()
    try:
        cohort = Cohort(lab.job(lab.using(epochs=1).cells("kd", "crd")), Progress())
        cohort.run(lambda: False)
        left = weakref.ref(cohort)
        del cohort
        assert left() is None
    finally:
        gc.enable()


def _vandal(**members):
    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(type("Vandal", (Method,), {"loss": loss, "__module__": __name__, **members}))


def _edit_target(self, batch, student, teacher, modules, terms):
    batch.target.zero_()
    batch.progress.add_(5)


def _edit_logits(self, batch, student, teacher, modules, terms):
    teacher.logits.data.clamp_(-0.1, 0.1)


def _edit_labels(self, context, teacher_batches, modules):
    context.train_targets.zero_()


def _edit_maps(self, batch, student, teacher, modules, terms):
    teacher.features[-1].mul_(3)


@pytest.mark.parametrize(
    "members",
    [
        {"update": _edit_target},
        {"update": _edit_logits},
        {"prepare": _edit_labels},
        {"update": _edit_maps, "needs": Needs(features=True)},
    ],
)
def test_what_a_method_writes_into_is_its_own(lab, members):
    """Whoever stands before them in the cohort: kd, fitnet and ce train as alone."""
    _vandal(**members)
    others = ("kd", "fitnet", "ce")
    alone = lab.using(work="alone", epochs=2).train(*others)
    beside = lab.using(work="beside", epochs=2).train("vandal", *others)
    for name in others:
        assert same(beside[name].student, alone[name].student)
        assert beside[name].row["final_loss"] == alone[name].row["final_loss"]
    wrote = "writes into the teacher's maps" in str(beside["vandal"].row["error"])
    assert wrote == ("needs" in members)
