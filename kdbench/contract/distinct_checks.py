"""No two methods are one and the same under two names."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from kdbench import registry
from kdbench.contract.core import Subject, require
from kdbench.contract.loss_checks import gradients
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.models import OFFERS
from kdbench.contract.synthetic.modules import warmed
from kdbench.method import Method


def check_distinct(subject: Subject) -> None:
    """Beside the cross-entropy the gradient is parallel to no other method's, unless alias_of says so."""
    mine = subject.method
    for entry in registry.entries():
        cls = entry.cls
        if cls is None or not cls.__module__.startswith("kdbench.methods.") or _related(type(mine), cls):
            continue
        other = registry.create(cls.name, {})
        for offer in OFFERS:
            a, b = direction(mine, offer), direction(other, offer)
            if a is not None and b is not None:
                cosine = _cosine(a, b)
                require(
                    cosine <= 0.999,
                    f"its gradient is that of {cls.name} (cosine {cosine:.6f}): declare alias_of",
                )
                break


def _related(a: type[Method], b: type[Method]) -> bool:
    """Whether the two are one method, or forms of the same one by ``alias_of``."""
    return (a.alias_of or a.name) in (b.name, b.alias_of) or b.alias_of == a.name


def _cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Of gradients by view; a view that one method does not see counts as 0."""
    product = sum(float(a[view] @ b[view]) for view in a.keys() & b.keys())
    lengths = [sum(float(v.square().sum()) for v in each.values()) ** 0.5 for each in (a, b)]
    return product / max(lengths[0] * lengths[1], 1e-300)


@functools.cache
def direction(method: Method, offer: str) -> dict[str, Tensor] | None:
    """The gradient by view of all terms but "ce" on one common problem, flat; None if the method cannot run there."""
    try:
        problem = problems.make(method, 16, 10, 3, torch.float64, offer, tied=True)
        if method.skip(problem.context) is not None:
            return None
        terms = problem.run(warmed(problem)).terms
        total = torch.stack([v for k, v in terms.items() if k != "ce"] or list(terms.values())).sum()
        slopes = {view: gradients(total, problem.student.leaves(view)) for view in method.needs.views}
        return {view: torch.cat([slope.flatten() for slope in each]) for view, each in slopes.items()}
    except Exception:  # it fails its own checks
        return None
