"""The cohort loop on 64 images: against a plain loop, alone and in company, stopped, resumed, out of memory."""

import dataclasses
import math
import pickle
import re
import time
from datetime import datetime
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench import checkpoint, driver, identity, locks, models, registry, store
from kdbench.data.views import View
from kdbench.errors import KdbenchError
from kdbench.job import Progress, load_split, resumable
from kdbench.method import Method, Needs
from kdbench.suites import Recipe
from kdbench.train import learning_rate, train_cohort


def same(left, right):
    """Equal to the last bit, through dicts, lists and tensors."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def state_of(lab, cell):
    """The cell's checkpoint without its times."""
    state = checkpoint.load(checkpoint.path_of(lab.work, cell.id))
    return {key: value for key, value in state.items() if key != "seconds"}


class After:
    """A ``stop`` that says yes from its n-th question on."""

    def __init__(self, questions):
        self.left = questions

    def __call__(self):
        self.left -= 1
        return self.left < 0


# --- the learning rate ---


def recipe(**changes):
    known = {
        "epochs": 240, "reference_epochs": 240, "batch_size": 64, "lr": 0.05, "momentum": 0.9, "nesterov": False,
        "weight_decay": 5e-4, "schedule": "step", "precision": "fp32", "eval_every": 1,
        "milestones": (150, 180, 210),
    }  # fmt: skip
    return Recipe(**(known | changes))


def test_step_decay_is_torchs_multisteplr_over_240_epochs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [150, 180, 210], gamma=0.1)
    for epoch in range(240):
        expected = scheduler.get_last_lr()[0]
        for step in (0, 781):
            assert learning_rate(recipe(), epoch, step, 782) == pytest.approx(expected, rel=1e-12), epoch
        optimizer.step()
        scheduler.step()


def test_step_decay_by_hand():
    """CRD's code: the rate falls in the epochs 151, 181 and 211, counted from 1."""
    rates = [learning_rate(recipe(), epoch - 1, 0, 782) for epoch in (1, 150, 151, 180, 181, 210, 211, 240)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 5e-4, 5e-4, 5e-5, 5e-5])


@pytest.mark.parametrize("epochs", [8, 16, 48, 480])
def test_milestones_keep_their_share_when_epochs_change(epochs):
    rates = [learning_rate(recipe(epochs=epochs), epoch, 0, 1) for epoch in range(epochs)]
    falls = [e / epochs for e in range(1, epochs) if rates[e] < rates[e - 1]]
    assert falls == [150 / 240, 180 / 240, 210 / 240]


def test_one_cycle_by_hand():
    """10 epochs of 2 steps, the peak at 0.3: up through 0.025/0.3, down through 0.7 to 0.025/0.7."""
    cycle = recipe(schedule="onecycle", epochs=10, lr=0.1)
    assert learning_rate(cycle, 0, 0, 2) == pytest.approx(0.1 * 0.025 / 0.3)
    assert learning_rate(cycle, 2, 1, 2) == pytest.approx(0.1 * 0.275 / 0.3)
    assert learning_rate(cycle, 3, 0, 2) == pytest.approx(0.1 * 0.675 / 0.7)
    assert learning_rate(cycle, 9, 1, 2) == pytest.approx(0.1 * 0.025 / 0.7)
    rates = [learning_rate(cycle, epoch, step, 2) for epoch in range(10) for step in range(2)]
    rise, fall = np.diff(rates[:6]), np.diff(rates[6:])
    assert rise == pytest.approx(0.1 * 0.05 / 0.3)
    assert fall == pytest.approx(-0.1 * 0.05 / 0.7)
    assert 0 < min(rates) < max(rates) < 0.1


# --- the oracle: a plain loop ---


def plain_loop(lab, cell, loss):
    """The student's state dict after the cell's recipe, by a loop that shares no training code with kdbench.

    SGD by its definition: g += wd w; v = momentum v + g; w -= lr v.
    """
    split, recipe = lab.split, cell.recipe
    torch.manual_seed(identity.stream("init", split.id, cell.seed, cell.student))
    net = models.create(cell.student_model.arch, 4, **cell.student_model.args)
    teacher = lab.teacher.net(lab.suite.dataset).model
    pixels = (split.train.images.permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.3
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    net.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(64, generator=identity.generator("order", split.id, cell.seed, epoch))
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


def test_batches_are_the_order_stream_and_every_sample_once_an_epoch(lab, diary):
    lab.train("scribe")
    split, steps = lab.split, diary["scribe"]
    for epoch in range(2):
        rows = torch.cat([s["index"] for s in steps[4 * epoch : 4 * epoch + 4]])
        generator = identity.generator("order", split.id, 0, epoch)
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


def test_all_methods_start_from_the_same_weights_on_the_same_batches(lab, diary):
    lab.train("scribe", "pupil", "crowd")
    first = [diary[name][0] for name in ("scribe", "pupil", "crowd")]
    for key in ("index", "logits", "draw", "global"):
        assert torch.equal(first[0][key], first[1][key])
        assert torch.equal(first[0][key], first[2][key])


@pytest.mark.parametrize("what", ["seed", "data"])
def test_another_seed_and_other_data_are_other_streams(lab, diary, what):
    (cell,) = lab.cells("scribe")
    lab.run([cell])
    before = diary.pop("scribe")
    if what == "seed":
        lab.run([dataclasses.replace(cell, seed=1)])
    else:
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


# --- stop, kill, resume ---


@pytest.fixture
def memory(lab):
    """A method with everything that must survive: a parameter, a bank, a prepared mean, both random streams."""
    prepared = []

    class Bank(nn.Module):
        def __init__(self, context):
            super().__init__()
            self.projector = nn.Linear(4, 4)
            self.register_buffer("bank", torch.zeros(context.train_size, 4))
            self.register_buffer("mean", torch.zeros(4))

    class Memory(Method):
        needs: ClassVar[Needs] = Needs(index=True)

        def build(self, context):
            return Bank(context)

        def prepare(self, context, teacher_batches, modules):
            prepared.append(self.name)
            modules.mean += torch.cat([teacher.logits for _, teacher in teacher_batches]).mean(0)

        def loss(self, batch, student, teacher, modules):
            noise = torch.rand(4, generator=batch.generator) + torch.rand(4)
            pull = (
                modules.projector(student.logits) - modules.bank[batch.index] - modules.mean - noise
            ).square()
            ce = cross_entropy(student.logits, batch.target)
            return {"ce": ce, "pull": 0.01 * pull.mean(), "_logits": student.logits}

        def update(self, batch, student, teacher, modules, terms):
            modules.bank[batch.index] = 0.5 * modules.bank[batch.index] + terms["_logits"]

    registry.register(Memory)
    return prepared


NAMES = ("kd", "memory")


def test_stopped_and_resumed_is_uninterrupted(lab, memory):
    """Weights, momentum, modules, curves, sums, random streams: bit for bit, from anywhere in an epoch.

    4 steps an epoch and a question before each step and after the last: five an epoch.
    """
    cells = lab.cells(*NAMES, student="dropper")
    whole = lab.run(cells)
    for questions, position in ((0, (0, 0)), (2, (0, 2)), (4, (1, 0)), (8, (1, 3))):
        memory.clear()
        other = lab.using(work=f"stopped{questions}")
        results, stopped = train_cohort(other.job(cells), stop=After(questions))
        assert stopped
        assert [r.row["status"] for r in results] == ["interrupted"] * 2
        assert [r.row["epochs_done"] for r in results] == [position[0]] * 2
        assert all(r.student == {} for r in results)
        states = [state_of(other, cell) for cell in cells]
        assert {(state["epoch"], state["step"]) for state in states} == {position}
        resumed, stopped = train_cohort(other.job(cells))
        assert not stopped
        assert memory == ["memory"]  # prepared once, not at every start
        for result, cell in zip(resumed, cells, strict=True):
            name = str(cell)
            assert same(result.student, whole[name].student), name
            assert same(result.curves, whole[name].curves), name
            assert (result.details["confusion"] == whole[name].details["confusion"]).all()
            assert same(state_of(other, cell), state_of(lab, cell)), name


class Slow(Progress):
    def step(self, images):
        time.sleep(0.01)


def test_killed_and_typed_again_is_uninterrupted(lab, memory, in_child, wait_for):
    """kill -9 in the second epoch: at most the epoch in flight is lost, and the numbers are the same."""
    lab = lab.using(epochs=3)
    cells = lab.cells(*NAMES)
    whole = lab.run(cells)
    other = lab.using(work="killed")
    child = in_child(train_cohort, other.job(cells), Slow())
    wait_for(lambda: all(checkpoint.path_of(other.work, cell.id).exists() for cell in cells))
    child.kill()
    child.join()
    assert child.exitcode == -9
    assert {state_of(other, cell)["epoch"] for cell in cells} <= {1, 2}
    resumed = other.run(cells)
    for name in NAMES:
        assert same(resumed[name].student, whole[name].student)
        assert same(resumed[name].curves, whole[name].curves)


def test_a_finished_cell_whose_row_was_lost_is_measured_not_trained(lab):
    cells = lab.cells("kd")
    whole = lab.run(cells)["kd"]
    before = time.monotonic()
    again = lab.run(cells)["kd"]
    assert same(again.student, whole.student)
    assert again.row["train_s"] == whole.row["train_s"] < time.monotonic() - before + whole.row["train_s"]
    for key in ("status", "top1", "nll", "ece", "kl_teacher", "train_top1", "top1_best", "epochs_done"):
        assert again.row[key] == whole.row[key]


PLUGIN = """
from torch.nn.functional import cross_entropy
from kdbench.method import Method, Needs
from kdbench.registry import register

@register
class Edited(Method):
    needs = Needs(teacher=False)
    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}
"""


def test_another_code_discards_the_checkpoint_and_comments_do_not(lab, tmp_path):
    texts = {
        "same": PLUGIN + "# a comment\n",
        "edited": PLUGIN.replace("cross_entropy(s", "2 * cross_entropy(s"),
    }

    def load(name, text):
        registry._entries.pop("edited", None)
        (tmp_path / name).mkdir()
        (tmp_path / name / "edited.py").write_text(text)
        registry.load(tmp_path / name)
        return lab.cells("edited")[0]

    cell = load("first", PLUGIN)
    train_cohort(lab.job([cell]), stop=After(3))
    assert resumable(lab.work, cell)["step"] == 3
    assert resumable(lab.work, load("same", texts["same"]))["step"] == 3
    edited = load("edited", texts["edited"])
    assert edited.id == cell.id
    assert resumable(lab.work, edited) is None


@pytest.mark.parametrize(
    "content", [b"", b"torn", None, {"step": 3}, [1, 2], {"cell_id": "another", "code": ""}]
)
def test_a_file_that_is_not_the_cells_checkpoint_is_passed_over(lab, content):
    (cell,) = lab.cells("ce")
    path = checkpoint.path_of(lab.work, cell.id)
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert resumable(lab.work, cell) is None


def test_a_full_disk_costs_the_checkpoint_not_the_training(lab):
    """A file stands where the folder of checkpoints should be."""
    warned = []

    class Listener(Progress):
        def warn(self, text):
            warned.append(text)

    whole = lab.train("kd")["kd"]
    other = lab.using(work="blocked")
    other.work.write_text("")
    results, _ = train_cohort(other.job(other.cells("kd")), Listener())
    assert same(results[0].student, whole.student)
    assert len(warned) == 1
    assert str(other.work) in warned[0]
    assert "training goes on" in warned[0]


# --- rows and curves ---


def test_curves_have_every_term_of_every_epoch_and_sum_to_the_loss(lab):
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


def test_a_teacherless_cell_has_no_teacher_columns_in_company_or_not(lab):
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


def test_prepare_sees_the_plain_train_set_once_in_order_and_again_if_it_wants(lab):
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


def test_a_parameter_without_a_gradient_is_not_decayed_and_one_with_is_trained(lab):
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


# --- a method that fails, and its neighbours ---


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
        known["kd"] = identity.weights_digest(student)
    return known["kd"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_method_is_closed_with_its_reason_and_its_neighbours_go_on(lab, kd_alone, fault):
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
    assert identity.weights_digest(results["kd"].student) == kd_alone


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


# --- jobs ---


def test_a_job_is_picklable_and_trains_the_same(lab):
    job = lab.job(lab.cells("kd", "mlkd", sets={"kd": {"temperature": [2.0]}}))
    assert [cell.id for cell in job.cells]  # cached ids travel along or are made anew
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job
    assert [c.id for c in copy.cells] == [c.id for c in job.cells]
    here, _ = train_cohort(job)
    there, _ = train_cohort(dataclasses.replace(copy, work=lab.folder / "elsewhere"))
    assert all(same(a.student, b.student) for a, b in zip(here, there, strict=True))
    assert same(pickle.loads(pickle.dumps(here[0])).student, here[0].student)


# --- the driver: memory, time, rows ---


@pytest.fixture
def drive(lab):
    """`run` on the laboratory's suite file with its teacher's weights; what was said is in ``drive.said``."""
    weights = lab.folder / "weights"
    weights.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), weights / "teacher.pth")
    said = []

    def run(*methods, replaced=(), **options):
        usual = {
            "data_dir": lab.data, "teacher_weights": weights, "results": lab.folder / "results", "device": "cpu",
            "say": said.append,
        }  # fmt: skip
        return driver.run(str(lab.suite_file(*replaced)), list(methods), **(usual | options))

    run.said = said
    return run


def test_out_of_memory_halves_the_cohort_until_it_fits(drive, lab, monkeypatch):
    sizes = []

    def tight(job, progress, stop):
        sizes.append(len(job.cells))
        if len(job.cells) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return train_cohort(job, progress, stop)

    monkeypatch.setattr(driver, "train_cohort", tight)
    outcome = drive("ce", "kd", "dkd", "ctkd", seeds=[0])
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert outcome.exit_code == 0
    assert sorted(outcome.records["method"]) == ["ce", "ctkd", "dkd", "kd"]
    assert set(outcome.records["status"]) == {"ok"}
    assert any("out of memory with 4 students side by side" in text for text in drive.said)


def test_a_cell_that_does_not_fit_alone_is_recorded_and_tried_again(drive, lab, monkeypatch):
    full = True

    def tight(job, progress, stop):
        if full and any(cell.method == "dkd" for cell in job.cells):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return train_cohort(job, progress, stop)

    monkeypatch.setattr(driver, "train_cohort", tight)
    outcome = drive("kd", "dkd")
    found = outcome.records.set_index("method")
    assert (found.loc["kd", "status"], found.loc["dkd", "status"]) == ("ok", "oom")
    assert found.loc["dkd", "error"] == "CUDA out of memory."
    assert outcome.exit_code == 3
    full = False
    outcome = drive("kd", "dkd")
    assert outcome.exit_code == 0
    assert sorted(outcome.records["attempt"]) == [1, 2]


def test_out_of_memory_late_after_a_neighbour_diverged(drive, lab):
    """The closed cell's checkpoint is older than its neighbour's: they must not go on from one position."""

    class Diverges(Method):
        def loss(self, batch, student, teacher, modules):
            factor = math.nan if batch.epoch > 120 else 1.0
            return {"ce": factor * cross_entropy(student.logits, batch.target)}

    hungry = []

    class Hungry(Method):
        def loss(self, batch, student, teacher, modules):
            if batch.epoch > 180 and not hungry:
                hungry.append(1)
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Diverges)
    registry.register(Hungry)
    outcome = drive("kd", "diverges", "hungry", epochs=4)
    assert hungry == [1]
    found = outcome.records.set_index("method")
    assert found["status"].to_dict() == {"kd": "ok", "diverges": "diverged", "hungry": "ok"}
    assert found.loc["hungry", "epochs_done"] == 4
    again = drive("hungry", epochs=4, results=lab.folder / "alone").records.set_index("method")
    for key in ("top1", "nll", "final_loss"):
        assert found.loc["hungry", key] == again.loc["hungry", key]


def test_rows_have_the_planned_ids_and_every_column_that_has_a_value(drive, lab):
    outcome = drive("ce", "kd")
    rows = store.read(lab.folder / "results" / "tiny.csv")
    assert set(rows["cell_id"]) == {cell.id for cell in outcome.cells}
    kd = rows.set_index("method").loc["kd"]
    empty = {column for column in store.COLUMNS if column != "method" and kd.isna()[column]}
    assert empty <= {"variant", "teacher_expected", "error", "cuda", "git_commit", "git_dirty"}
    assert (kd["split"], kd["teacher"], kd["student"], kd["suite"]) == ("test", "teacher", "student", "tiny")
    assert kd["teacher_id"] == lab.teacher.id
    curves = store.read(lab.folder / "results" / "tiny.curves.csv", store.CURVE_COLUMNS)
    assert set(curves["run_id"]) == set(rows["run_id"])
    with np.load(lab.folder / "results" / "tiny.details" / f"{kd['cell_id']}.npz") as details:
        assert details["confusion"].sum() == 24
    students = lab.folder / "results" / ".work" / "students"
    assert {f.stem for f in students.iterdir()} == set(rows["cell_id"])
    assert list((lab.folder / "results" / ".work").glob("*.pt")) == []


def test_started_is_the_start(drive, lab):
    """Of the run that made the row, not the moment when it was written."""

    class Sleepy(Method):
        def loss(self, batch, student, teacher, modules):
            time.sleep(0.3)
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Sleepy)
    begun = time.time()
    drive("sleepy")
    (row,) = store.read(lab.folder / "results" / "tiny.csv").to_dict("records")
    started = datetime.fromisoformat(row["started_utc"]).timestamp()
    assert started <= begun + 1.2 < time.time()


def test_what_is_done_is_not_done_again(drive, lab, monkeypatch):
    drive("ce", "kd")
    before = (lab.folder / "results" / "tiny.csv").read_bytes()
    monkeypatch.setattr(driver, "train_cohort", _raise)
    assert drive("ce", "kd").exit_code == 0
    assert (lab.folder / "results" / "tiny.csv").read_bytes() == before


def test_force_adds_a_row_with_the_same_numbers(drive, lab):
    drive("kd")
    assert drive("kd", force=True).exit_code == 0
    rows = store.read(lab.folder / "results" / "tiny.csv")
    assert rows["attempt"].tolist() == [1, 2]
    for key in ("cell_id", "top1", "nll", "ece", "final_loss"):
        assert rows[key].nunique() == 1


def test_what_another_process_trains_is_left_to_it(drive, lab):
    (kd,) = drive("kd", max_hours=0).cells
    with locks.held(lab.folder / "results" / ".work" / "locks", [kd.id]):
        outcome = drive("ce", "kd")
    assert outcome.elsewhere == 1
    assert set(outcome.records["method"]) == {"ce"}
    assert any("1 cells are being trained by another process" in note for note in outcome.notes)


def test_out_of_time_saves_and_says_so(drive, lab):
    outcome = drive("kd", max_hours=0)
    assert outcome.exit_code == 3
    assert outcome.records.empty
    assert any("type the same command to go on" in note for note in outcome.notes)
    assert drive("kd").exit_code == 0


def test_time_that_runs_out_after_the_last_cell_is_no_failure(drive, lab, monkeypatch):
    """The clock strikes while the last row is written: all is done, and the exit code says so."""
    late = []
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + (1e6 if late else 0.0))
    original = driver.record
    monkeypatch.setattr(driver, "record", lambda *a: (original(*a), late.append(1)))
    outcome = drive("kd", max_hours=1.0)
    assert outcome.records["status"].tolist() == ["ok"]
    assert outcome.exit_code == 0
    assert not any("stopped before the end" in note for note in outcome.notes)
