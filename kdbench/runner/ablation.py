"""Component ablation of one method: what each of its terms and switches is worth, on the holdout split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench import registry, suites
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.plan.selection import parse_sets
from kdbench.runner import describe as preview
from kdbench.runner import run as driver
from kdbench.runner.session import prepare
from kdbench.train.callbacks import Progress

REFERENCES = ("ce", "kd")  # trained beside it
TASK = "ce"  # the term that stays on when another one stands alone

Change = dict[str, Any]  # parameter -> value


def changes(method: Method, sweeps: Mapping[str, Sequence[Any]] | None = None) -> list[Change]:
    """List the changes to compare with the method as it is.

    They are: without each term; each term alone, with the task's; the values that the method declares in
    ``ablate``; and those of ``sweeps``, one parameter at a time. Terms are switched by the fields of ``weights``
    that are not 0 anyway.
    """
    active = [field for field in method.weights if getattr(method, field)]
    task = [field for field in active if method.weights[field] == TASK]
    found: list[Change] = [{field: type(getattr(method, field))(0)} for field in active]
    for kept in active:
        rest = [field for field in active if field != kept and (kept in task or field not in task)]
        found.append({field: type(getattr(method, field))(0) for field in rest})
    for values in (method.ablate, sweeps or {}):
        found += [{field: value} for field, options in values.items() for value in options]
    new = [change for change in found if dataclasses.replace(method, **change) != method]  # type: ignore[type-var]
    return [change for place, change in enumerate(new) if change not in new[:place]]


def selection(
    name: str, suite: str, sets: Sequence[str] = (), plugins: Path | None = None, **options: Any
) -> dict[str, Any]:
    """What `kdbench.runner.run.run` takes to train the ablation of ``name``. Raises KdbenchError for bad input."""
    registry.load(plugins)
    registry.get(name)
    sweeps = parse_sets(sets, [name]).get(name, {})
    method = registry.create(name, suites.load(suite).params.get(name, {}))
    tried = changes(method, sweeps)
    if not tried:
        raise KdbenchError(f"{name} declares neither `weights` nor `ablate`: say what to try with --set")
    return {
        "suite": suite,
        "methods": list(dict.fromkeys([name, *REFERENCES])),
        "also": [{name: {key: [value] for key, value in change.items()}} for change in tried],
        "split": "holdout",
        "plugins": plugins,
        **options,
    }


def describe(name: str, **options: Any) -> str:
    """The plan in words."""
    return preview.describe(prepare(**selection(name, **options)))


def run(
    name: str,
    *,
    jobs: int = 1,
    max_hours: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> driver.Outcome:
    """Train every missing cell of the ablation; the same call again goes on where it was."""
    return driver.run(jobs=jobs, max_hours=max_hours, progress=progress, **selection(name, **options))
