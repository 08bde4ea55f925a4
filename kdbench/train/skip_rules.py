"""When a method does not train on a pair: what the networks lack, or what the method itself declines."""

from __future__ import annotations

from typing import Any

from kdbench.errors import KdbenchError
from kdbench.method import Context, Method, ModelFacts
from kdbench.utils.needs import Needs, Role


def skip_reason(method: Method, context: Context) -> str | None:
    """Why ``method`` cannot train in ``context``, as one sentence; None when it can.

    In order: what the networks lack, the method's own ``skip``, too few classes, too small batches.
    """
    reason: Any = unmet(method.needs, context.student, context.teacher) or method.skip(context)
    if not (reason is None or isinstance(reason, str)):
        raise KdbenchError(f"{method.name}.skip must return the reason as a text, or None, got {reason!r}")
    if not reason and context.num_classes < method.min_classes:
        reason = f"{method.name} needs at least {method.min_classes} classes"
    largest = min(context.batch_size, context.train_size)
    if not reason and largest < method.min_batch:
        reason = f"{method.name} needs batches of at least {method.min_batch} images; the largest here is {largest}"
    return reason


def unmet(needs: Needs, student: ModelFacts, teacher: ModelFacts | None) -> str | None:
    """Which of ``needs`` a network cannot supply, as one sentence; None when both supply all."""
    networks: dict[Role, ModelFacts | None] = {"student": student, "teacher": teacher}
    for role, facts in networks.items():
        if needs.of(role).preact and facts is not None and not facts.has_preact:
            return f"the {role} has no pre-activation stages"
    return None
