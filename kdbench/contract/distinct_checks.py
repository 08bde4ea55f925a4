"""No two methods are one and the same under two names."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench import registry
from kdbench.contract.core import Subject, require
from kdbench.contract.loss_checks import gradients
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.models import OFFERS
from kdbench.contract.synthetic.modules import warmed


def check_distinct(subject: Subject) -> None:
    """Beside the cross-entropy the gradient is parallel to no other method's, unless alias_of says so."""
    mine, vectors = subject.method, subject.lab.directions
    for entry in registry.entries():
        cls = entry.cls
        if cls is None or cls.name == mine.name or not cls.__module__.startswith("kdbench.methods."):
            continue
        if (
            cls.name in (mine.alias_of,)
            or cls.alias_of == mine.name
            or (mine.alias_of and cls.alias_of == mine.alias_of)
        ):
            continue
        for offer in OFFERS:
            a, b = (vectors(name, offer) for name in (mine.name, cls.name))
            if a is not None and b is not None:
                cosine = _cosine(a, b)
                require(
                    cosine <= 0.999,
                    f"its gradient is that of {cls.name} (cosine {cosine:.6f}): declare alias_of",
                )
                break


def _cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Of gradients by view; a view that one method does not see counts as 0."""
    product = sum(float(a[view] @ b[view]) for view in a.keys() & b.keys())
    lengths = [sum(float(v.square().sum()) for v in each.values()) ** 0.5 for each in (a, b)]
    return product / max(lengths[0] * lengths[1], 1e-300)


def direction(name: str, offer: str) -> dict[str, Tensor] | None:
    """The gradient by view of all terms but "ce" on one common problem, flat; None if the method cannot run there."""
    method = registry.create(name, {})
    try:
        problem = problems.make(method, 16, 10, 3, torch.float64, offer, tied=True)
        if method.skip(problem.context) is not None:
            return None
        terms = problem.run(warmed(problem)).terms
        total = torch.stack([v for k, v in terms.items() if k != "ce"] or list(terms.values())).sum()
        found = {}
        for view in method.needs.views:
            slopes = gradients(total, problem.student.leaves(view))
            found[view] = torch.cat([slope.flatten() for slope in slopes])
        return found
    except Exception:  # it fails its own checks
        return None
