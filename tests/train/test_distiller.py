"""A method in one's own loop takes the harness's steps, bit for bit, and says what it lacks in one sentence."""

import types

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

import kdbench
from kdbench import models, registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.train.callbacks import Progress
from kdbench.train.cell_trainer import build_net
from kdbench.train.cohort import Cohort
from kdbench.train.optimizers import Optimisation
from kdbench.train.schedule import learning_rate
from kdbench.utils.rng import stream

# plain, a memory, a learned temperature with a warm-up, two views, class means, a head of its own
SAMPLE = ["kd", "crd", "ctkd", "mlkd", "kdpp", "simkd"]


def harness(lab, names):
    """Students of the cohort loop after two epochs, and the batches that they saw: (images, target, index)."""
    cohort = Cohort(lab.job(lab.using(epochs=2).cells(*names)), Progress())
    seen = []
    take = cohort._step

    def step(epoch, number, fed, trainees):
        seen.append((fed.images, fed.target, fed.index))
        take(epoch, number, fed, trainees)

    cohort._step = step
    cohort.run(lambda: False)
    return cohort, seen


def normalised(net, images):
    return {view: net._normalise(pixels) for view, pixels in images.items()}


def own_loop(cohort, trainee, seen):
    """The same training by `Distiller`, as a user writes it."""
    cell, recipe = trainee.cell, trainee.cell.recipe
    student = build_net(cell, torch.device("cpu"), cohort.job.work)
    distiller = kdbench.Distiller(
        trainee.method,
        student.model,
        cohort.teacher.model if cell.teacher else None,
        epochs=recipe.epochs,
        steps=cohort.steps,
        batch_size=recipe.batch_size,
        reference_epochs=recipe.reference_epochs,
        size=cell.dataset.size,
        targets=cohort.train.targets,
        seed=stream("cell", cell.split_id, cell.seed, cell.student),
    )
    plain = [(student._normalise(images), t, i) for i, t, images in cohort.train.plain(recipe.batch_size)]
    distiller.prepare(plain)
    optimizer = Optimisation.of(recipe).optimizer(distiller.student, distiller.extra)
    for number, (images, target, index) in enumerate(seen):
        epoch, step = divmod(number, cohort.steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch, step, cohort.steps)
        views = normalised(student, {view: images[view] for view in trainee.method.needs.views})
        loss = distiller.loss(views if len(views) > 1 else next(iter(views.values())), target, index)
        loss.backward()
        distiller.update()
        optimizer.step()
        optimizer.zero_grad()
    return distiller


def assert_equal_bits(lab, names):
    cohort, seen = harness(lab, names)
    trained = {trainee.cell.method: trainee for trainee in cohort.trainees if trainee.outcome is None}
    for name, trainee in trained.items():
        distiller = own_loop(cohort, trainee, seen)
        for ours, theirs in ((distiller.student, trainee.net), (distiller.extra, trainee.modules)):
            other = theirs.state_dict()
            for key, value in ours.state_dict().items():
                assert torch.equal(value, other[key]), (name, key)
    return trained


def test_it_takes_the_harnesss_steps_bit_for_bit(lab):
    assert assert_equal_bits(lab, SAMPLE).keys() == set(SAMPLE)


@pytest.mark.slow
def test_every_method_takes_the_harnesss_steps(lab):
    registry.load()
    # deepkd is refused; sskd's `prepare` reads augmentations that the cohort draws for it alone
    left = {*SAMPLE, "deepkd", "sskd"}
    names = [name for name in registry.names() if name not in left]
    assert len(assert_equal_bits(lab, names)) > 45


# --- any network, any loop ---


class Plain(nn.Module):
    """No timm model: images to logits."""

    def __init__(self, classes=4):
        super().__init__()
        self.layer = nn.Linear(48, classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3, 0, 1])
LOOP = {"epochs": 2, "steps": 3}


def test_logits_of_any_module_will_do():
    """By hand: Hinton's two terms."""
    torch.manual_seed(0)
    student, teacher = Plain(), Plain()
    distiller = kdbench.Distiller("kd", student, teacher, classes=4, **LOOP)
    loss = distiller.loss(IMAGES, TARGET)
    p, q = (nn.functional.log_softmax(net(IMAGES) / 4, dim=1) for net in (student, teacher))
    expected = 0.1 * cross_entropy(student(IMAGES), TARGET)
    expected = expected + 0.9 * 16 * (q.exp() * (q - p)).sum(dim=1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sum(distiller.terms.values()).item() == pytest.approx(loss.item(), rel=1e-6)
    assert not any(term.requires_grad for term in distiller.terms.values())
    loss.backward()
    assert student.layer.weight.grad is not None
    assert teacher.layer.weight.grad is None
    assert torch.equal(distiller.predict(IMAGES), student(IMAGES))
    resnet = torchvision.models.resnet18(num_classes=4)
    assert kdbench.Distiller("dist", resnet, teacher, classes=4, **LOOP).loss(
        IMAGES.repeat(1, 1, 8, 8)[:, :, :4, :4], TARGET
    )


def test_the_teacher_stays_as_it_is():
    torch.manual_seed(0)
    teacher = models.create("resnet8", 4)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distiller = kdbench.Distiller("fitnet", models.create("resnet8", 4), teacher, size=8, **LOOP).train()
    images = torch.rand(6, 3, 8, 8)
    distiller(images, TARGET).backward()
    assert distiller.student.training
    assert not teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None for p in distiller.extra.parameters())


def test_a_checkpoint_goes_on_with_the_same_bits():
    """Warm-up, dropout and the method's generator are where they were."""

    class Noisy(Method):
        name = "noisy"

        def loss(self, batch, student, teacher, modules):
            noise = torch.rand(4, generator=batch.generator) * batch.epoch * batch.progress
            return {"ce": cross_entropy(student.logits + noise, batch.target)}

    def new():
        torch.manual_seed(0)
        student = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4))
        return kdbench.Distiller(Noisy(), student, Plain(), classes=4, **LOOP)

    whole, first, second = new(), new(), new()
    losses = [whole.loss(IMAGES, TARGET).item() for _ in range(5)]
    assert [first.loss(IMAGES, TARGET).item() for _ in range(3)] == losses[:3]
    second.load_state_dict(first.state_dict())
    torch.rand(7)  # what else the loop draws does not matter
    assert [second.loss(IMAGES, TARGET).item() for _ in range(2)] == losses[3:]
    assert len(set(losses)) == 5


def test_without_a_seed_torchs_own_decides():
    """Runs of a loop that differ by `torch.manual_seed` alone must not share dropout and noise."""

    def drawn(outside, seed=None):
        torch.manual_seed(0)
        student, teacher = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4)), Plain()
        torch.manual_seed(outside)
        return (
            kdbench.Distiller("kd", student, teacher, classes=4, seed=seed, **LOOP)
            .loss(IMAGES, TARGET)
            .item()
        )

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1, seed=5) == drawn(2, seed=5) != drawn(1)


def test_ranks_draw_apart(monkeypatch):
    """What a method builds is alike on all ranks; its noise is not, nor after a checkpoint of the first rank."""

    class Noisy(Method):
        name = "noisy"

        def build(self, context):
            return nn.Linear(2, 2)

        def loss(self, batch, student, teacher, modules):
            return {"noise": torch.rand((), generator=batch.generator) + 0 * student.logits.sum()}

    def of(rank):
        monkeypatch.setattr("kdbench.train.distiller._rank", lambda: rank)
        distiller = kdbench.Distiller(Noisy(), Plain(), Plain(), classes=4, seed=0, **LOOP)
        return distiller, distiller.loss(IMAGES, TARGET).item()

    (first, noise), (second, other) = of(0), of(1)
    assert torch.equal(first.extra.weight, second.extra.weight)
    assert noise != other
    second.load_state_dict(first.state_dict())
    assert first.loss(IMAGES, TARGET).item() != second.loss(IMAGES, TARGET).item()


def test_validation_is_no_step():
    distiller = kdbench.Distiller("kd", Plain(), Plain(), classes=4, **LOOP)
    distiller.eval()
    with torch.no_grad():
        distiller.loss(IMAGES, TARGET)
    assert distiller.get_extra_state()["batches"] == 0


def test_a_teacher_that_the_method_does_not_need_is_left_out():
    distiller = kdbench.Distiller("ce", Plain(), Plain(), classes=4, **LOOP)
    assert distiller.teacher is None
    assert distiller.loss(IMAGES, TARGET).item() == cross_entropy(distiller.predict(IMAGES), TARGET).item()


SHARED = models.create("resnet8", 4)


def timm_pair():
    return models.create("resnet8", 4), models.create("resnet8", 4)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("kdd", {}, "unknown method 'kdd'; did you mean 'kd'"),
        ("deepkd", {}, "deepkd treats the gradients of its terms differently, .* use kdbench.run"),
        ("fitnet", {}, "fitnet reads more than logits; give the images' size="),
        ("crd", {"size": 8}, "crd remembers images; give the labels of all training images as targets="),
        ("kd", {"teacher": None}, "kd needs a teacher; give teacher="),
        ("kd", {"student": SHARED, "teacher": SHARED}, "student and teacher share parameters; give a copy"),
        (
            "kd",
            {"student": "resnet18"},
            "the student must be a torch.nn.Module with parameters, got 'resnet18'",
        ),
        (
            "kd",
            {"teacher": nn.Flatten()},
            "the teacher must be a torch.nn.Module with parameters, got Flatten",
        ),
        ("kd", {"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ("kd", {"steps": 2.5}, "steps must be a whole number of at least 1, got 2.5"),
        ("kd", {"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        (["kd"], {}, "method is a name, a Method class or an object of one, got"),
        (
            "fitnet",
            {"size": 8, "student": Plain()},
            "'Plain' cannot be used: it has no timm forward_intermediates",
        ),
        ("kd", {"student": Plain()}, "does not say its number of classes; give classes="),
        (
            "fsp",
            {"size": 8, "student": models.create("resnet8x4", 4)},
            "fsp cannot train these networks: fsp needs",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(method, options, message):
    student, teacher = timm_pair()
    options = {"student": student, "teacher": teacher, **LOOP, **options}
    with pytest.raises(KdbenchError, match=message) as caught:
        kdbench.Distiller(method, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (
            IMAGES,
            TARGET.float(),
            r"target must be the labels .* int64 tensor \[B\], got torch\.float32 \[6\]",
        ),
        (IMAGES, torch.eye(4)[TARGET], r"target must be the labels .* got torch\.float32 \[6, 4\]"),
        (IMAGES, TARGET.tolist(), r"target must be the labels .* got list"),
        (TARGET, IMAGES, r"target must be the labels .* got torch\.float32 \[6, 3, 4, 4\]"),
        (
            IMAGES,
            TARGET[:5],
            r"images must be a tensor with an image per label, 5, got torch\.float32 \[6, 3",
        ),
        (IMAGES.numpy(), TARGET, r"images must be a tensor with an image per label, 6, got ndarray"),
    ],
)
def test_a_wrong_batch_is_one_sentence(images, target, message):
    distiller = kdbench.Distiller("kd", Plain(), Plain(), classes=4, **LOOP)
    with pytest.raises(KdbenchError, match=message):
        distiller.loss(images, target)
    assert distiller.get_extra_state()["batches"] == 0


def test_a_model_may_return_an_object_that_holds_the_logits():
    class Wrapped(Plain):
        def forward(self, images):
            return types.SimpleNamespace(logits=super().forward(images), hidden=None)

    torch.manual_seed(0)
    student, teacher = Plain(), Plain()
    wrapped_student, wrapped_teacher = Wrapped(), Wrapped()
    wrapped_student.load_state_dict(student.state_dict())
    wrapped_teacher.load_state_dict(teacher.state_dict())
    plain = kdbench.Distiller("kd", student, teacher, classes=4, **LOOP).loss(IMAGES, TARGET)
    wrapped = kdbench.Distiller("kd", wrapped_student, wrapped_teacher, classes=4, **LOOP).loss(
        IMAGES, TARGET
    )
    assert wrapped.item() == plain.item()

    class Several(Plain):
        def forward(self, images):
            return super().forward(images), images

    with pytest.raises(KdbenchError, match=r"Several returns tuple in place of logits \[B, C\]; wrap it"):
        kdbench.Distiller("kd", Several(), Plain(), classes=4, **LOOP).loss(IMAGES, TARGET)


def test_a_forgotten_call_is_one_sentence():
    student, teacher = timm_pair()
    images = torch.rand(6, 3, 8, 8)
    crd = kdbench.Distiller("crd", student, teacher, size=8, targets=TARGET, **LOOP)
    with pytest.raises(KdbenchError, match="give loss the places of the batch's images as index"):
        crd.loss(images, TARGET)
    crd.loss(images, TARGET, torch.arange(6)).backward()
    with pytest.raises(KdbenchError, match=r"crd remembers: call update\(\) after backward"):
        crd.loss(images, TARGET, torch.arange(6))
    crd.update()
    crd.loss(images, TARGET, torch.arange(6))
    with pytest.raises(KdbenchError, match="the teacher has 7 classes instead of 4"):
        kdbench.Distiller("kd", student, models.create("resnet8", 7), **LOOP).loss(images, TARGET)
    with pytest.raises(KdbenchError, match="mlkd reads several views: give images as a dict of weak, strong"):
        kdbench.Distiller("mlkd", student, teacher, **LOOP).loss(images, TARGET)
    with pytest.raises(KdbenchError, match=r"looks at the training images first: call prepare\(loader\)"):
        kdbench.Distiller("kdpp", student, teacher, size=8, **LOOP).loss(images, TARGET)
