"""Values of hyperparameters: checked against a field's type, and read from the command line's text."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from kdbench.errors import KdbenchError, unknown


def coerce(kind: Any, value: Any, what: str) -> Any:
    """``value`` as the field type ``kind``; an int is accepted for a float, nothing else is converted.

    Raises KdbenchError naming ``what`` and the type.
    """
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise unknown("value", str(value), map(str, get_args(kind)), f" for {what}")
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
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
