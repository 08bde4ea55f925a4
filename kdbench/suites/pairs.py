"""How a pair is written: ``teacher:student``, ``teacher->student`` where a name holds a colon, or as two names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.utils.text import split_commas

ARROW, COLON = "->", ":"
PREFIXES = ("cifar", "timm", "hf-hub", "local-dir")  # of a network's name, before a colon


def pair_name(teacher: str, student: str) -> str:
    """The pair in words, as `split_pair` reads it."""
    return f"{teacher}{ARROW if COLON in teacher + student else COLON}{student}"


def split_pair(text: str) -> tuple[str, str] | None:
    """Teacher and student; None for a text that is no pair, or whose colons may divide it in several places.

    >>> split_pair("resnet56:resnet20")
    ('resnet56', 'resnet20')
    >>> split_pair("hf-hub:timm/resnet18.a1_in1k->resnet20")
    ('hf-hub:timm/resnet18.a1_in1k', 'resnet20')
    >>> split_pair("timm:resnet18:resnet20") is None, split_pair("timm:resnet18") is None
    (True, True)
    """
    separator = ARROW if ARROW in text else COLON
    names = [name.strip() for name in text.split(separator)]
    if len(names) != 2 or not all(names) or (separator == COLON and names[0] in PREFIXES):
        return None
    return names[0], names[1]


def usual_spelling(text: str) -> str:
    """A pair as `pair_name` writes it, however it is spelled; a text that is no pair as it is."""
    names = split_pair(text)
    return pair_name(*names) if names else text


def read_pair(value: Any, hint: str = "") -> tuple[str, str]:
    """Teacher and student of a text (as `split_pair` reads it) or of a tuple or list of two names.

    hint: the end of the error's sentence. Raises KdbenchError for everything else.
    """
    names = split_pair(value) if isinstance(value, str) else tuple(value) if is_pair(value) else None
    if names is None:
        has_prefix = any(f"{prefix}{COLON}" in str(value) for prefix in PREFIXES)
        arrow = ", or in quotes 'teacher->student' where a name holds a colon" if has_prefix else ""
        raise KdbenchError(f"a pair is written teacher:student{arrow}, got {value!r}{hint}")
    return names


def listed(pairs: Any) -> list[Any]:
    """Pairs as a list: of a text with commas, of one pair alone (a tuple of two names, an object), or of several."""
    if isinstance(pairs, str):
        return split_commas(pairs)
    if not isinstance(pairs, Iterable) or (isinstance(pairs, tuple) and is_pair(pairs)):
        return [pairs]
    return list(pairs)


def is_pair(value: Any) -> bool:
    """Whether a tuple or list holds the names of a teacher and a student, rather than pairs."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(name, str) and name and split_pair(name) is None for name in value)
    )
