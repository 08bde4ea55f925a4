"""Recipes beyond the literature's SGD: optimisers, clipping, smoothed labels, mixup, averaged weights, schedules."""

import copy
import dataclasses
import math

import pytest
import timm.scheduler
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.contract.toy_suite import difference
from kdbench.data.batches import Fed
from kdbench.data.mixup import Mixed, mix
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Method, Needs, Outputs, Views
from kdbench.plan.cohorts import form_cohorts
from kdbench.runner import trial
from kdbench.runner.run import resolve
from kdbench.suites import load, replace_recipe
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from kdbench.train.optimizers import Optimisation
from kdbench.train.schedule import learning_rate
from kdbench.train.step import Step, call_loss, smoothed, smoothing_refusal
from tests.support.loops import After

CIFAR = load("cifar100").recipe
MODERN = {
    "optimizer": "adamw", "optimizer_args": {"betas": [0.8, 0.99]}, "lr": 1e-3, "schedule": "cosine",
    "warmup_epochs": 60.0, "clip": 0.5, "label_smoothing": 0.1, "mixup": 0.4, "ema": 0.9,
}  # fmt: skip


class Net(nn.Module):
    """A layer, a norm and a head, whose embedding is exempted from decay."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.ones(3, 3))
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 4)

    def no_weight_decay(self):
        return {"embedding"}

    def forward(self, x):
        return self.head(self.norm(x @ self.embedding))


def create(name, **params):
    registry.load()
    return registry.create(name, params)


def shown(net, x, teacher=None):
    other = Views({"weak": Outputs(teacher)}, Needs()) if teacher is not None else None
    return [(Views({"weak": Outputs(net(x))}, Needs()), other)]


def batch(target):
    return Batch(target, 1.0, False, torch.tensor(0.0), torch.Generator())


X, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 0, 1])


def trained(method, optimisation, steps=3, **options):
    torch.manual_seed(0)
    net = Net()
    step = Step(method, net, nn.Module(), optimisation, **options)
    for _ in range(steps):
        step(batch(TARGET), shown(net, X))
    return net


# --- optimisers and clipping ---


def test_adamw_is_torchs_with_decay_where_timm_puts_it():
    torch.manual_seed(0)
    net = Net()
    bare = [net.embedding, net.norm.weight, net.norm.bias, net.head.bias]
    groups = [{"params": bare, "weight_decay": 0.0}, {"params": [net.head.weight], "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.99))
    for _ in range(3):
        cross_entropy(net(X), TARGET).backward()
        optimizer.step()
        optimizer.zero_grad()
    settings = Optimisation(0.01, weight_decay=0.1, name="adamw", args={"betas": [0.8, 0.99]})
    ours = trained(create("ce"), settings)
    for name, value in net.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_gradients_are_clipped_by_their_common_norm():
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):
        cross_entropy(net(X), TARGET).backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in net.parameters()))
        assert norm > 0.05
        for p in net.parameters():
            p.grad.mul_(0.05 / norm)
        optimizer.step()
        optimizer.zero_grad()
    ours = trained(create("ce"), Optimisation(0.5, clip=0.05))
    for name, value in net.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6), name


def test_gradients_by_term_are_clipped_by_the_norm_of_their_sum():
    """Equal momenta for both groups, and one decay: then the two buffers together are SGD's one."""

    class Two(Method):
        name = "two"
        needs = Needs(teacher=False)
        gap = 0.0

        @property
        def momentum_offsets(self):
            return {"ce": self.gap, "size": 1e-12}

        def loss(self, batch, student, teacher, modules):
            z = student.logits
            return {"ce": cross_entropy(z, batch.target), "size": z.square().mean()}

    class One(Two):
        momentum_offsets = {}

    settings = Optimisation(0.5, 0.9, weight_decay=0.01, clip=0.05)
    ours, expected = trained(Two(), settings), trained(One(), settings)
    for name, value in expected.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamww"}, "unknown optimizer 'adamww'; did you mean 'adamw'"),
        ({"optimizer": "adahessian"}, "unknown optimizer 'adahessian'"),
        ({"optimizer": "adamw", "optimizer_args": {"beta": 1}}, "adamw cannot be made with optimizer_args"),
    ],
)
def test_an_optimizer_that_is_not_there_is_one_sentence(changes, message):
    recipe = replace_recipe(CIFAR, changes, "here")
    with pytest.raises(KdbenchError, match=message) as caught:
        Optimisation.of(recipe).optimizer(Net(), nn.Module())
    assert "\n" not in str(caught.value)


# --- schedules ---


def test_cosine_with_warmup_is_timms():
    recipe = replace_recipe(CIFAR, {"epochs": 10, "schedule": "cosine", "warmup_epochs": 24.0}, "here")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    cosine = timm.scheduler.CosineLRScheduler(
        optimizer, t_initial=20000, warmup_t=2000, warmup_lr_init=0, t_in_epochs=False
    )
    for epoch, step in [(0, 0), (0, 500), (0, 999), (1, 0), (4, 700), (9, 999)]:
        cosine.step_update(
            2 * (1000 * epoch + step) + 1
        )  # two updates of timm's a step: ours is in the middle
        assert learning_rate(recipe, epoch, step, 1000) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_warmup_rises_to_the_steps_of_the_literature():
    recipe = replace_recipe(CIFAR, {"warmup_epochs": 5.0}, "here")
    rates = [learning_rate(recipe, epoch, 0, 1) for epoch in (0, 2, 4, 5, 149, 150)]
    assert rates == pytest.approx([0.005, 0.025, 0.045, 0.05, 0.05, 0.005])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "onecycle", "warmup_epochs": 5.0}, "onecycle warms up by itself"),
        ({"warmup_epochs": 240.0}, "less than reference_epochs = 240"),
        ({"optimizer_args": {"eps": 1e-3}}, "sgd has momentum and nesterov"),
        ({"label_smoothing": 1.0}, "from 0 to below 1"),
        ({"ema": -0.1}, "from 0 to below 1"),
        ({"clip": -1.0}, "clip must be 0 or more"),
        ({"mixup": math.inf}, "mixup must be finite"),
    ],
)
def test_a_wrong_value_is_refused(changes, message):
    with pytest.raises(KdbenchError, match=message):
        replace_recipe(CIFAR, changes, "here")


# --- smoothed labels ---


def call_of(name, views=("weak",), **params):
    method = create(name, **params)
    draw = torch.Generator().manual_seed(2)
    student, teacher = (
        Views({v: Outputs(torch.randn(6, 4, generator=draw)) for v in views}, method.needs) for _ in range(2)
    )
    return method, call_loss(method, batch(TARGET), student, teacher, nn.Module())


def test_smoothed_labels_by_a_loop():
    method, call = call_of("kd")
    rows = call.student.logits.log_softmax(dim=1).tolist()
    loss = 0.0
    for row, label in zip(rows, TARGET.tolist(), strict=True):
        wanted = [0.3 / 4 + 0.7 * (c == label) for c in range(4)]
        loss -= sum(w * p for w, p in zip(wanted, row, strict=True)) / 6
    new = smoothed(method, call, 0.3).terms
    assert new["ce"].item() == pytest.approx(0.1 * loss, rel=1e-5)
    assert torch.equal(new["kd"], call.terms["kd"])


def test_labels_are_smoothed_on_each_view():
    method, call = call_of("kd_twoview", ("weak", "strong"))
    assert smoothing_refusal(method, call) is None
    expected = sum(
        cross_entropy(call.student[v].logits, TARGET, label_smoothing=0.2) for v in ("weak", "strong")
    )
    weight = call.terms["ce"] / sum(cross_entropy(call.student[v].logits, TARGET) for v in ("weak", "strong"))
    assert smoothed(method, call, 0.2).terms["ce"].item() == pytest.approx(
        (weight * expected).item(), rel=1e-5
    )


def test_a_method_without_that_term_is_refused(lab):
    @registry.register
    class Margin(Method):
        """Its term of that name is no cross-entropy."""

        def loss(self, batch, student, teacher, modules):
            return {"ce": student.logits.square().mean()}

    recipe = dataclasses.replace(lab.suite.recipe, label_smoothing=0.1)
    suite = dataclasses.replace(lab.suite, recipe=recipe)
    inputs = lab.inputs(
        ("weight_decay = 5e-4", "weight_decay = 5e-4\nlabel_smoothing = 0.1"), methods=["ce", "margin"]
    )
    assert inputs.workspace.suite.recipe == suite.recipe
    with pytest.raises(
        KdbenchError, match=r"margin cannot train teacher:student: label_smoothing has no meaning for margin"
    ):
        trial.try_methods(inputs.workspace, [cell for cell in inputs.cells() if cell.method != "kd"])


# --- mixup ---


def fed():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 2, 2).contiguous()
    rows = torch.arange(6)
    return Fed(rows, rows, TARGET, {"weak": images, "strong": images + 10}, {})


def test_every_view_is_blended_with_the_same_images():
    mixed_fed, mixed = mix(fed(), 0.8, ("split", 0, 3, 7))
    share = mixed.share.item()
    assert 0.5 <= share < 1.0
    for place in range(6):
        weak, strong = (mixed_fed.images[v][place].unique() for v in ("weak", "strong"))
        assert len(weak) == 1
        other = (weak.item() - share * place) / (1 - share)
        assert other == pytest.approx(round(other), abs=1e-3)
        assert mixed.target[place] == TARGET[round(other)]
        assert strong.item() == pytest.approx(weak.item() + 10, rel=1e-5)
    again, same = mix(fed(), 0.8, ("split", 0, 3, 7))
    assert torch.equal(again.images["weak"], mixed_fed.images["weak"])
    assert torch.equal(same.target, mixed.target)
    shares = {mix(fed(), 0.8, ("split", 0, 3, step))[1].share.item() for step in range(5)}
    assert len(shares) == 5


def test_the_loss_of_a_blend_is_that_of_both_labels():
    torch.manual_seed(0)
    net, other = Net(), TARGET.flip(0)
    expected = copy.deepcopy(net)
    loss = 0.7 * cross_entropy(expected(X), TARGET) + 0.3 * cross_entropy(expected(X), other)
    loss.backward()
    with torch.no_grad():
        for p in expected.parameters():
            p -= 0.5 * p.grad
    step = Step(create("ce"), net, nn.Module(), Optimisation(0.5))
    losses = step(batch(TARGET), shown(net, X), Mixed(other, torch.tensor(0.7)))
    assert losses.total.item() == pytest.approx(loss.item(), rel=1e-6)
    for name, value in expected.state_dict().items():
        assert torch.allclose(net.state_dict()[name], value, atol=1e-6), name


def test_cells_of_another_mixup_train_apart(lab):
    cells = [lab.using(mixup=value).cells("ce")[0] for value in (0.0, 0.2, 0.2)]
    assert [len(cohort) for cohort in form_cohorts(cells, {})] == [1, 2]


@pytest.mark.parametrize(
    ("method", "sets", "recipe", "message"),
    [
        ("crd", {}, {"mixup": 0.2}, "crd remembers images or their classes, .* use mixup = 0"),
        ("dkl", {}, {"mixup": 0.2}, "dkl remembers images or their classes"),
        ("deepkd", {}, {"optimizer": "adamw"}, "deepkd trains its terms with momenta of their own"),
        ("kd", {"momentum_gap": [0.05]}, {"optimizer": "lamb"}, "kd trains its terms .* optimizer = 'sgd'"),
    ],
)
def test_what_has_no_meaning_for_a_method_is_refused(lab, method, sets, recipe, message):
    with pytest.raises(KdbenchError, match=message):
        lab.using(**recipe).cells(method, sets={method: sets})


# --- averaged weights ---


def test_the_averaged_student_is_evaluated_and_saved(lab):
    cell = lab.using(ema=0.5, epochs=1).cells("ce")[0]
    cohort = Cohort(lab.job([cell]), Progress())
    trainee = cohort.trainees[0]
    expected = {name: value.clone() for name, value in trainee.net.model.state_dict().items()}
    take = trainee.take_step

    decays = iter([0.0, 1 - 2 ** (-2 / 3), 0.5, 0.5])  # timm's warm-up, until it reaches 0.5

    class Watched:
        def __call__(self, *arguments):
            losses, decay = take(*arguments), next(decays)
            for name, value in trainee.net.model.state_dict().items():
                blend = decay * expected[name] + (1 - decay) * value
                expected[name] = blend if value.is_floating_point() else value.clone()
            return losses

        def __getattr__(self, name):
            return getattr(take, name)

    trainee.take_step = Watched()
    (result,), _ = cohort.run(lambda: False)
    assert result.row["status"] == "ok"
    for name, value in expected.items():
        assert torch.allclose(result.student[name], value, atol=1e-6), name
    assert not torch.equal(result.student["fc.weight"], trainee.net.model.state_dict()["fc.weight"])


def test_a_method_that_keeps_modules_averages_them_too(lab):
    result = lab.using(ema=0.9, epochs=1).train("simkd")["simkd"]
    assert result.row["status"] == "ok", result.row


# --- all of it together ---


def test_stopped_and_in_company_the_bits_are_the_same(lab):
    """Each part keeps its state in the checkpoint, and none of them leaks from a student to the next."""
    whole = lab.using("whole", **MODERN).train("kd")["kd"]
    assert whole.row["status"] == "ok"
    stopped = lab.using("stopped", **MODERN)
    job = stopped.job(stopped.cells("kd", "mlkd"))
    _, interrupted = train_cohort(job, stop=After(5))
    assert interrupted
    (kd, mlkd), _ = train_cohort(job)
    assert difference(kd, whole) is None
    assert mlkd.row["status"] == "ok"


def test_the_command_line_changes_students_alone():
    selection, _ = resolve("cifar100", ["kd"], lr=0.01, clip=5.0)
    suite = selection.suite
    assert (suite.recipe.lr, suite.recipe.clip) == (0.01, 5.0)
    assert not any("lr" in pair.recipe for pair in suite.pairs)
    teacher = replace_recipe(suite.recipe, suite.teacher_recipe, "teacher")
    assert (teacher.lr, teacher.clip) == (0.05, 0.0)
    with pytest.raises(KdbenchError, match="lr must be greater than 0"):
        resolve("cifar100", ["kd"], lr=0.0)


def test_a_divergence_names_the_remedies(lab):
    result = lab.using(lr=1e30).train("dkd")["dkd"]
    assert result.row["status"] == "diverged"
    assert result.row["error"].endswith(
        "; try a smaller learning rate than 1e+30 (--lr) or clipped gradients (--clip 5) or a smaller dkd.beta than 8"
    )
    clipped = lab.using("again", lr=1e30, clip=5.0).train("ce")["ce"]
    assert clipped.row["error"].endswith("; try a smaller learning rate than 1e+30 (--lr)")
