"""Component ablation of one method: what each of its terms and switches is worth, on the holdout split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import TASK, Method
from kdbench.plan.selection import Selection, Sets, parse_sets
from kdbench.runner import run as driver
from kdbench.runner.options import RunOptions
from kdbench.suites import Suite

REFERENCES = ("ce", "kd")  # trained beside it

Change = dict[str, Any]  # parameter -> value


def changes(method: Method, sweeps: Mapping[str, Sequence[Any]] | None = None) -> list[Change]:
    """List the changes to compare with the method as it is.

    They are: without each term; each term alone, with the task's; the values that the method declares in
    ``ablate``; and those of ``sweeps``, one parameter at a time. Terms are switched by the fields of ``weights``
    that are not 0 anyway.
    """
    active = [field for field in method.weights if getattr(method, field)]
    task = [
        field for field in active if method.weights[field] == TASK
    ]  # it stays on when another stands alone
    candidates: list[Change] = [{field: type(getattr(method, field))(0)} for field in active]
    for alone in active:
        rest = [field for field in active if field != alone and (alone in task or field not in task)]
        candidates.append({field: type(getattr(method, field))(0) for field in rest})
    for values in (method.ablate, sweeps or {}):
        candidates += [{field: value} for field, options in values.items() for value in options]
    new = [change for change in candidates if dataclasses.replace(method, **change) != method]  # type: ignore[type-var]
    return [change for place, change in enumerate(new) if change not in new[:place]]


def resolve(
    name: str, suite: str | Path | Suite = "digits", sets: Sets = (), **arguments: Any
) -> tuple[Selection, RunOptions]:
    """What to train for the ablation of ``name``, and how. Raises KdbenchError for bad input.

    sets: further values, one parameter at a time. arguments: others of `run`, less methods and split.
    """
    plugins = arguments.get("plugins")
    registry.load(Path(plugins) if plugins else None)
    registry.get(name)
    sweeps = parse_sets(sets, [name]).get(name, {})
    loaded = driver.load_suite(suite)
    selection, _ = driver.resolve(loaded, [name], split="holdout", **arguments)
    usual = [registry.create(name, selection.suite.params_of(name, pair)) for pair in selection.pairs]
    every = [change for method in usual for change in changes(method, sweeps)]
    variants = [change for place, change in enumerate(every) if change not in every[:place]]
    if not variants:
        raise KdbenchError(f"{name} declares neither `weights` nor `ablate`: say what to try with --set")
    return driver.resolve(
        loaded,
        [name, *REFERENCES],
        [{name: {key: [value] for key, value in change.items()}} for change in variants],
        split="holdout",
        **arguments,
    )
