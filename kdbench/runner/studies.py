"""The arithmetic of `tuning`: which trials a study asks for next, what a trial came to, and which one wins."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.plan.settings import Setting
from kdbench.results.trials import best, latest, values_of
from kdbench.runner.search import suggest
from kdbench.suites import Pair
from kdbench.suites.pairs import pair_name
from kdbench.utils.field_values import as_float, as_int
from kdbench.utils.hashing import digest
from kdbench.utils.search_space import Choice, Range, Space, of_table
from kdbench.utils.status import Status
from kdbench.utils.toml_files import read_toml

BATCH = 8  # trials of a study that train side by side


@dataclass(frozen=True)
class Budget:
    """When a study ends: after ``trials``, or where ``hours`` > 0 after these hours of its students' own training.

    Trials are made in rounds of ``batch``; the hours of finished rounds count.
    """

    trials: int = 24
    hours: float = 0.0
    batch: int = BATCH

    def end(self, first: int, before: pd.DataFrame) -> int:
        """The number of the trial that a round, which begins at ``first`` after the trials ``before``, ends before."""
        if self.hours:
            return first + self.batch * (before["train_s"].sum() < 3600 * self.hours)
        return min(first + self.batch, self.trials)


def budget_of(trials: Any, hours: Any, batch: Any) -> Budget:
    """The budget of this number of trials or hours; None: that of `Budget`.

    Raises KdbenchError for both and for what is no number greater than 0.
    """
    if trials is not None and hours is not None:
        raise KdbenchError("give a number of trials or hours, not both: each is a budget of its own")
    numbers: dict[str, Any] = {"trials": as_int(trials), "hours": as_float(hours), "batch": as_int(batch)}
    for name, value in (("trials", trials), ("hours", hours), ("batch", batch)):
        if value is not None and not (numbers[name] or 0) > 0:
            whole = "" if name == "hours" else "whole "
            raise KdbenchError(f"{name} must be a {whole}number greater than 0, got {value!r}")
    return Budget(**{name: number for name, number in numbers.items() if number is not None})


@dataclass(frozen=True, eq=False)
class Study:
    """The search for one method on one pair.

    id: hash of all that its trials share. space: of the method's parameters; recipe_space: of the recipe's fields.
    default: the suite's values of both. chance: the accuracy, in percent, that a trial counts with that diverged or
    was stopped: it says where not to search.
    """

    id: str
    method: str
    pair: Pair
    space: Space
    recipe_space: Space
    default: Mapping[str, Any]
    chance: float

    @property
    def both(self) -> Space:
        """All that is searched."""
        return {**self.space, **self.recipe_space}

    def rows_of(self, trials: pd.DataFrame) -> pd.DataFrame:
        """The study's own rows."""
        return trials[trials["study"] == self.id]

    def left(self, trials: pd.DataFrame, budget: Budget) -> list[int]:
        """The numbers of what is left of the first round that is not finished.

        A method that skips its pair has no further trials.
        """
        rows = self.rows_of(trials)
        done = set(rows["trial"])
        first = next(n for n in itertools.count() if n not in done) // budget.batch * budget.batch
        if (rows["status"] == Status.SKIPPED).any():
            return []
        return [n for n in range(first, budget.end(first, rows[rows["trial"] < first])) if n not in done]

    def next_trials(self, trials: pd.DataFrame, budget: Budget) -> dict[int, Setting]:
        """Number -> setting of the trials that are `left`; the first trial is the default.

        They follow from the trials before their round alone.
        """
        numbers = self.left(trials, budget)
        if not numbers:
            return {}
        first, rows = numbers[0] // budget.batch * budget.batch, self.rows_of(trials)
        asked = self._round(first, rows[rows["trial"] < first], budget.batch)
        return {number: self._setting(number, asked[number - first]) for number in numbers}

    def _round(self, first: int, before: pd.DataFrame, batch: int) -> list[Mapping[str, Any]]:
        """The values of the ``batch`` trials from ``first`` on."""
        default = [] if first else [self.default]
        kinds = {key: registry.field_type(self.method, key) for key in self.space}
        kinds |= dict.fromkeys(self.recipe_space, float)
        seed = int(digest([self.id, first]), 16) % 2**32
        return [
            *default,
            *suggest(self.both, kinds, list(self._finished(before)), batch - len(default), seed),
        ]

    def _finished(self, rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], float]]:
        for row in rows.to_dict("records"):
            known = values_of(row)
            if row["status"] == Status.OK:
                yield known, row["top1"]
            elif row["status"] in (Status.DIVERGED, Status.PRUNED):
                yield known, self.chance

    def _setting(self, number: int, both: Mapping[str, Any]) -> Setting:
        own = {key: both[key] for key in self.space}
        recipe = {key: both[key] for key in self.recipe_space}
        return Setting(self.method, str(self.pair), own, recipe, f"trial {number}")


def outcome(records: pd.DataFrame) -> dict[str, Any]:
    """What a trial came to by the records of its runs: status, top1, train_s."""
    statuses = list(records["status"])
    status = next((each for each in statuses if each != Status.OK), Status.OK)
    return {
        "status": status,
        "top1": records["top1"].mean() if status == Status.OK else None,
        "train_s": float(records["train_s"].sum()),
    }


def winners(trials: pd.DataFrame) -> list[Setting]:
    """The best setting of each method and pair, of the study that was worked on last."""
    found = []
    for _, rows in latest(trials).groupby(["teacher", "student", "method"]):
        if row := best(rows):
            pair, label = pair_name(row["teacher"], row["student"]), f"tuned ({len(rows)} trials)"
            params, recipe = json.loads(row["params"]), json.loads(row["recipe"])
            found.append(Setting(row["method"], pair, params, recipe, label))
    return found


# --- ranges over those of the methods ---


def search_spaces(
    methods: Sequence[str], given: str | Path | Mapping[str, Any] | None = None
) -> dict[str, Space]:
    """Method -> its search space, with the ranges of a TOML file, or of a dict like its content, over its own.

    The file has a table per method, such as ``[kd]`` with ``temperature = { log = [1, 16] }``; the words are log,
    linear and choice. A dict may hold ranges themselves (`kdbench.method.log_range`). Raises KdbenchError for what is
    no range or no parameter, and for a method that is not searched.
    """
    file = "space" if isinstance(given, Mapping) else str(given)
    tables = _tables(given) if given else {}
    if strange := [name for name in tables if name not in methods]:
        raise KdbenchError(
            f"{file} has ranges of {strange[0]}, which is not among the methods; add it to --methods"
        )
    return {
        name: {
            **registry.get(name).space,
            **{key: _range(file, name, key, table) for key, table in tables.get(name, {}).items()},
        }
        for name in methods
    }


def _tables(given: str | Path | Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    tables = given if isinstance(given, Mapping) else _read(given)
    if strange := [name for name, table in tables.items() if not isinstance(table, Mapping)]:
        where = "space" if given is tables else given
        raise KdbenchError(f"{where}: {strange[0]} must be a table of ranges, such as [kd]")
    return tables


def _read(file: str | Path) -> Mapping[str, Any]:
    if not isinstance(file, str | os.PathLike):
        raise KdbenchError(f"space is a TOML file or a dict of methods and their ranges, got {file!r}")
    try:
        return read_toml(Path(file))
    except OSError as error:
        raise KdbenchError(f"cannot read {file} ({error.strerror})") from error


def _range(file: str, name: str, key: str, table: Any) -> Range | Choice:
    kind, where = registry.field_type(name, key), f"{file}: {name}.{key}"
    try:
        space = table if isinstance(table, Range | Choice) else of_table(table)
    except KdbenchError as error:
        raise KdbenchError(f"{where} {error}") from None
    if isinstance(space, Range) and kind not in (int, float):
        raise KdbenchError(f"{where} is no number: give its values by {{ choice = [...] }}")
    for corner in space.corners:
        registry.create(name, {key: corner})
    return space
