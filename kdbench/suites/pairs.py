"""How a pair is written: ``teacher:student``, or ``teacher->student`` where a name holds a colon."""

from __future__ import annotations

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
