"""Test-only methods that use all of the plug-in interface and write down what they are given in `SEEN`."""

from collections import defaultdict
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from kdbench.method import Method, Needs
from kdbench.registry import register

SEEN: dict[str, list] = defaultdict(list)


def shapes(views):
    """What one model hands out on one view, as shapes."""
    return {
        "logits": tuple(views.logits.shape),
        "embedding": tuple(views.embedding.shape),
        "features": tuple(views.features.shape),
        "stages": [tuple(stage.shape) for stage in views.stages],
        "preact": [tuple(stage.shape) for stage in views.preact],
    }


def gap(a, b):
    """The largest difference."""
    return float((a - b).detach().abs().max())


@register
class Everything(Method):
    """Reads all that can be declared, on two views."""

    needs: ClassVar[Needs] = Needs(
        views=("weak", "strong"),
        embedding=True,
        features=True,
        stages=True,
        preact=True,
        classifier=True,
        index=True,
    )

    def loss(self, batch, student, teacher, modules):
        for role, model in (("student", student), ("teacher", teacher)):
            for view in self.needs.views:
                SEEN[f"shapes {role} {view}"].append(shapes(model[view]))
            SEEN[f"head {role}"].append(gap(model.classify(model.embedding), model.logits))
            SEEN[f"mean {role}"].append(gap(model.features.mean((2, 3)), model.embedding))
            SEEN[f"relu {role}"].append(
                max(gap(p.relu(), s) for p, s in zip(model.preact, model.stages, strict=True))
            )
            SEEN[f"first {role}"].append(model.logits is model["weak"].logits)
            SEEN[f"views {role}"].append(gap(model["weak"].logits, model["strong"].logits))
        SEEN["learns"].append(
            (student.classify(student.embedding.detach()).requires_grad, teacher.logits.requires_grad)
        )
        return {"ce": sum(cross_entropy(student[view].logits, batch.target) for view in self.needs.views)}


@register
class Maps(Method):
    """A 1x1 convolution a stage from the student's channels to the teacher's, as the context tells them."""

    needs: ClassVar[Needs] = Needs(stages=True)
    coupled: ClassVar[bool] = True

    def build(self, context):
        SEEN["facts"].append((context.student, context.teacher))
        pairs = zip(context.student.stages, context.teacher.stages, strict=False)
        return nn.ModuleList(nn.Conv2d(s.channels, t.channels, 1) for s, t in pairs)

    def loss(self, batch, student, teacher, modules):
        gaps = []
        for project, s, t in zip(modules, student.stages, teacher.stages, strict=False):
            gaps.append(mse_loss(nn.functional.adaptive_avg_pool2d(project(s), t.shape[2:]), t))
        return {"ce": cross_entropy(student.logits, batch.target), "maps": sum(gaps)}


@register
class Bank(Method):
    """A memory of every sample's last embedding on the strong view, and how often it was written."""

    needs: ClassVar[Needs] = Needs(views=("strong",), teacher=False, embedding=True, index=True)

    def build(self, context):
        modules = nn.Module()
        modules.register_buffer("rows", torch.zeros(context.train_size, context.student.embedding_size))
        modules.register_buffer("written", torch.zeros(context.train_size, dtype=torch.int64))
        return modules

    def loss(self, batch, student, teacher, modules):
        pull = (student.embedding - modules.rows[batch.index]).square().mean()
        return {
            "ce": cross_entropy(student.logits, batch.target),
            "pull": 0.01 * pull,
            "_new": student.embedding + 1,
        }

    def update(self, batch, student, teacher, modules, terms):
        SEEN["terms"].append(
            (sorted(terms), any(t.requires_grad for t in terms.values()), torch.is_grad_enabled())
        )
        modules.rows[batch.index] = terms["_new"]
        modules.written[batch.index] += 1
        SEEN["index"].append((batch.index.clone(), batch.target.clone()))


@register
class Means(Method):
    """The teacher's mean embedding of every class, from one pass before training."""

    needs: ClassVar[Needs] = Needs(embedding=True, index=True)

    def build(self, context):
        modules = nn.Module()
        modules.register_buffer("means", torch.zeros(context.num_classes, context.teacher.embedding_size))
        modules.project = nn.Linear(context.student.embedding_size, context.teacher.embedding_size)
        return modules

    def prepare(self, context, teacher_batches, modules):
        SEEN["prepare grad"].append(torch.is_grad_enabled())
        for _ in range(2):
            passed = list(teacher_batches)
            SEEN["prepare"].append(torch.cat([batch.index for batch, _ in passed]))
            SEEN["prepare last"].append([batch.last for batch, _ in passed])
        target = torch.cat([batch.target for batch, _ in passed])
        embedding = torch.cat([teacher.embedding for _, teacher in passed])
        SEEN["prepare target"].append((target, context.train_targets))
        for label in range(context.num_classes):
            modules.means[label] = embedding[target == label].mean(dim=0)
        SEEN["prepare means"].append(modules.means.clone())

    def loss(self, batch, student, teacher, modules):
        SEEN["means in loss"].append(modules.means.clone())
        near = mse_loss(modules.project(student.embedding), modules.means[batch.target])
        return {"ce": cross_entropy(student.logits, batch.target), "near": near}


@register
class Reuse(Method):
    """The prediction is the teacher's head on the projected embedding; the projector stays."""

    needs: ClassVar[Needs] = Needs(embedding=True, classifier=True)
    keeps_modules: ClassVar[bool] = True

    def build(self, context):
        modules = nn.Module()
        modules.project = nn.Linear(context.student.embedding_size, context.teacher.embedding_size)
        modules.head = context.teacher.classify  # a function, no parameter
        return modules

    def loss(self, batch, student, teacher, modules):
        return {"near": mse_loss(modules.project(student.embedding), teacher.embedding)}

    def predict(self, student, modules):
        logits = modules.head(modules.project(student.embedding))
        SEEN["predicted"].append((logits.clone(), student.logits.clone(), modules.training))
        return logits


@register
class Clock(Method):
    """Notes what a batch tells of time, and draws from its generator."""

    needs: ClassVar[Needs] = Needs(teacher=False)

    def loss(self, batch, student, teacher, modules):
        drawn = torch.rand((), generator=batch.generator)
        SEEN["clock"].append((batch.epoch, float(batch.progress), batch.last, float(drawn)))
        SEEN["no teacher"].append(teacher is None)
        return {"ce": (1 + 0.1 * drawn) * cross_entropy(student.logits, batch.target)}


@register
class Choosy(Method):
    """Wants a pair that is not there."""

    needs: ClassVar[Needs] = Needs(teacher=False)

    def skip(self, context):
        return f"{context.num_classes} classes are not the right number"

    def loss(self, batch, student, teacher, modules):
        raise AssertionError("a skipped cell is trained")


@register
class Sneaky(Method):
    """Reads what it did not declare."""

    needs: ClassVar[Needs] = Needs()
    what: str = "stages"

    def loss(self, batch, student, teacher, modules):
        if self.what == "index":
            return {"ce": 0 * batch.index.sum()}
        if self.what == "strong":
            return {"ce": cross_entropy(student["strong"].logits, batch.target)}
        found = getattr(teacher if self.what == "features" else student, self.what)
        return {"ce": cross_entropy(student.logits, batch.target) + 0 * len(found)}


@register
class Early(Method):
    """Declares preact alone."""

    needs: ClassVar[Needs] = Needs(preact=True)

    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target) + 0 * student.preact[-1].mean()}


@register
class Faulty(Method):
    """Goes wrong in one of several ways."""

    how: str = "build"

    def build(self, context):
        if self.how == "build":
            raise ValueError("no module today")
        return {} if self.how == "no module" else nn.Module()  # type: ignore[return-value]

    def loss(self, batch, student, teacher, modules):
        ce = cross_entropy(student.logits, batch.target)
        if self.how == "loss":
            return {"ce": ce / {}["nothing"]}
        if self.how == "update" or self.how == "predict":
            return {"ce": ce}
        wrong = {"nan": {"ce": ce * float("nan")}, "shape": {"ce": student.logits}, "none": None, "empty": {}}
        return wrong[self.how]

    def update(self, batch, student, teacher, modules, terms):
        if self.how == "update":
            raise RuntimeError("no update today")

    def predict(self, student, modules):
        if self.how == "predict":
            return student.logits[:, :2]
        return student.logits
