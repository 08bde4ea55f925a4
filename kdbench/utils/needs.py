"""What a method needs of the models, beside the logits. No torch: the list of methods reads it from their files."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class Needs:
    """What the harness must supply to a method; reading anything else raises `kdbench.method.UndeclaredNeed`.

    views: names of the suite's views; "weak@1", "weak@2" and "weak@3" are "weak" with the same random choices, turned
    counter-clockwise by so many quarter turns. ``preact`` may name the one model that must have it: not every network
    does.
    """

    views: tuple[str, ...] = ("weak",)
    teacher: bool = True
    embedding: bool = False
    features: bool = False
    stages: bool = False
    preact: bool | Role = False
    classifier: bool = False
    index: bool = False

    def __or__(self, other: Needs) -> Needs:
        """The union: what one forward must yield to serve both."""
        flags = (f.name for f in dataclasses.fields(self) if f.name != "views")
        either: dict[str, Any] = {name: _either(getattr(self, name), getattr(other, name)) for name in flags}
        return Needs(views=tuple(dict.fromkeys(self.views + other.views)), **either)

    def of(self, role: Role) -> Needs:
        """What is needed of one model, with every flag a bool."""
        return dataclasses.replace(self, preact=self.preact in (True, role))


def describe(needs: Needs) -> str:
    """Say in words what a method needs beyond one view's logits of student and teacher.

    >>> describe(Needs(views=("weak", "strong"), stages=True, preact="teacher"))
    'weak+strong views, stages, preact of the teacher'
    """
    words = [] if needs.teacher else ["no teacher"]
    if needs.views != ("weak",):
        words.append("+".join(needs.views) + " views")
    flags = (f.name for f in dataclasses.fields(needs) if f.name not in ("views", "teacher"))
    values = ((name, getattr(needs, name)) for name in flags)
    words += [name if value is True else f"{name} of the {value}" for name, value in values if value]
    return ", ".join(words) or "logits"


def union(needs: Iterable[Needs]) -> Needs:
    """What one forward must yield to serve all of them; without any, no view."""
    return functools.reduce(operator.or_, needs, Needs(views=(), teacher=False))


def _either(one: bool | Role, other: bool | Role) -> bool | Role:
    """What serves both; of both models where each names another."""
    return True if one and other and one != other else one or other
