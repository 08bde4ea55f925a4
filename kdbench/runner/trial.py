"""Before anything is trained: whether every method takes a step on every pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.runner.workspace import Workspace
from kdbench.suites.pairs import pair_name
from kdbench.train.trial import FAILS, Networks, Trial
from kdbench.utils.hashing import canonical


def try_methods(workspace: Workspace, cells: Sequence[Cell]) -> None:
    """Take one step of the methods of ``cells`` on random images, each pair's networks built once.

    A method is tried on each pair with one of its settings, and each further setting on one pair. Raises KdbenchError
    for what fails: a network at this size, or a method on a pair.
    """
    networks = Networks(workspace.suite, torch.device(workspace.device))
    targets = workspace.split.train.targets
    failures = []
    for (teacher, student), chosen in _by_pair(cells).items():
        trial = Trial(networks, student, teacher, chosen[0].recipe, targets)
        outcomes = trial.outcomes([cell.build_method() for cell in chosen], finite=False)
        pair = pair_name(teacher, student) if teacher else student
        failures += [
            f"{cell} cannot train {pair}: {outcome.reason}"
            for cell, outcome in zip(chosen, outcomes, strict=True)
            if outcome.mark == FAILS
        ]
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise KdbenchError(f"{failures[0]}{more}; fix that, or leave it out by --methods or --pairs")


def _by_pair(cells: Sequence[Cell]) -> dict[tuple[str | None, str], list[Cell]]:
    """The cells to try by (teacher, student): of cells that differ in the seed alone, and of settings tried, one."""
    seen: set[str] = set()
    chosen: dict[tuple[str | None, str], list[Cell]] = {}
    for cell in cells:
        pair, setting = (cell.teacher, cell.student), canonical([cell.method, dict(cell.params)])
        known = {each.method for each in chosen.get(pair, ())}
        if cell.method not in known or setting not in seen:
            chosen.setdefault(pair, []).append(cell)
            seen.add(setting)
    return chosen
