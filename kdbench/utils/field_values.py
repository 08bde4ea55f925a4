"""Values of hyperparameters: checked against a field's type, and read from the command line's text."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any, Literal, get_args, get_origin

from kdbench.errors import KdbenchError, unknown


def as_int(value: Any) -> int | None:
    """A whole number as int, numpy's too; None for everything else, bools and whole floats among them."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def as_float(value: Any) -> float | None:
    """A real number as float, whole ones and numpy's too; None for everything else, bools among them."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def coerce(kind: Any, value: Any, what: str) -> Any:
    """``value`` as the field type ``kind``; whole numbers are accepted for a float, numpy's for both.

    Raises KdbenchError naming ``what`` and the type.
    """
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise unknown("value", str(value), map(str, get_args(kind)), f" for {what}")
    if kind is float and (real := as_float(value)) is not None and math.isfinite(real):
        return real
    if kind is int and (whole := as_int(value)) is not None:
        return whole
    if kind in (bool, str) and type(value) is kind:
        return value
    raise KdbenchError(f"{what} takes a {'finite ' if kind is float else ''}{kind.__name__}, got {value!r}")


def parse(kind: Any, text: str, what: str) -> Any:
    """The command line's ``text`` as a value of the field type ``kind``."""
    try:
        if kind is bool:
            value: Any = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif kind in (int, float):
            value = kind(text)
        else:
            value = text
    except (KeyError, ValueError):
        raise KdbenchError(f"{what} takes a {kind.__name__}, got {text!r}") from None
    return coerce(kind, value, what)
