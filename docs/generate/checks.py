"""The checks of the contract, with the fact that each one states."""

from __future__ import annotations

from docs.generate.markdown import code, prose, table
from kdbench import contract


def listed() -> str:
    """A table per group of checks."""
    chapters = [f"{len(contract.CHECKS)} checks in {len(contract.BY_GROUP)} groups."]
    for group, checks in contract.BY_GROUP.items():
        rows = [[code(name), prose(check.__doc__ or "")] for name, check in checks.items()]
        chapters += [f"### {group.capitalize()}", table(["check", "states"], rows)]
    return "\n\n".join(chapters)
