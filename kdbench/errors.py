"""The exception for a user's mistake, and its sentence for an unknown name."""

import difflib
from collections.abc import Iterable


class KdbenchError(Exception):
    """Invalid input, explained in one sentence with its remedy; the command line prints it and exits with 1."""


def unknown(kind: str, name: str, choices: Iterable[str], where: str = "") -> KdbenchError:
    """Build the error for a name that is not among ``choices``, with the nearest valid one."""
    known = sorted(choices)
    written = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name.lower(), written, n=1)
    hint = f"did you mean {written[near[0]]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return KdbenchError(f"unknown {kind} {name!r}{where}; {hint}")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type where it has none: the reason in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
