"""The option ``graphs``: how steps are recorded as CUDA graphs."""

from __future__ import annotations

from kdbench.errors import KdbenchError

BRANCHES, SEQUENTIAL = "branches", "sequential"
GRAPHS = (
    BRANCHES,
    SEQUENTIAL,
)  # a cohort's step as one CUDA graph with a branch per cell, or as one graph per cell


def graphs_of(value: object) -> str:
    """The option ``graphs`` as one of `GRAPHS`, or '' for none; True stands for the first.

    Raises KdbenchError for anything else.
    """
    if isinstance(value, bool):
        return BRANCHES if value else ""
    if value in ("", *GRAPHS):
        return str(value)
    raise KdbenchError(f"graphs must be True, False, {BRANCHES!r} or {SEQUENTIAL!r}, got {value!r}")
