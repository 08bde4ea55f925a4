"""One step without a harness: batches, model outputs and facts made of plain tensors."""

import torch

from kdbench import registry
from kdbench.method import Batch, Context, ModelFacts, Outputs, StageFacts, Views

registry.load()


def batch(target, epoch=240.0, last=False, index=None):
    target = torch.as_tensor(target)
    return Batch(target, epoch, last, torch.tensor(0.5), torch.Generator().manual_seed(0), index)


def views(method, *logits, **outputs):
    """One model as the method sees it: logits a view; ``outputs`` are the first view's other fields."""
    names = method.needs.views
    made = {name: Outputs(value) for name, value in zip(names, logits, strict=True)}
    made[names[0]] = Outputs(logits[0], **outputs)
    return Views(made, method.needs)


def facts(linear_head=True, embedding_size=6, classify=None):
    stage = StageFacts(embedding_size, (4, 4))
    return ModelFacts((stage,) * 3, embedding_size, (4, 4), embedding_size, classify, linear_head, True)


def context(num_classes=5, train_targets=None, student=None, teacher=None, batch_size=8, epochs=240):
    targets = torch.arange(100) % num_classes if train_targets is None else train_targets
    student, teacher = student or facts(), teacher or facts()
    return Context(num_classes, len(targets), targets, batch_size, epochs, student, teacher)


def step(name, target, student, teacher=(), epoch=240.0, modules=None, **params):
    """The terms of the registered method ``name``; ``student`` and ``teacher`` hold logits, one a view."""
    method = registry.create(name, params)
    if modules is None:
        modules = method.build(context(num_classes=student[0].shape[1]))
    seen = views(method, *teacher) if method.needs.teacher else None
    return method.loss(batch(target, epoch), views(method, *student), seen, modules)


def with_totals(terms, **rename):
    """``terms`` under the stored names, with ``total`` (all but the cross-entropy) and ``total_with_ce``."""
    total = sum(value for key, value in terms.items() if key != "ce")
    named = {stored: terms[ours] for stored, ours in rename.items()}
    return {"ce": terms["ce"], "total": total, "total_with_ce": terms["ce"] + total, **named}


def logits(count, classes, seed=0, scale=2.0, dtype=torch.float64):
    """[count, classes] normal logits of their own seed."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, classes, generator=generator, dtype=torch.float64).to(dtype)
