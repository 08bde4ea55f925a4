"""A choice of rows by method, pair, epochs, split, start and status."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.results import setting
from kdbench.suites.pairs import ARROW, COLON, is_pair, listed, pair_name
from kdbench.utils.field_values import as_int
from kdbench.utils.status import Status
from kdbench.utils.text import split_commas

SHOWN = 12  # names that a sentence lists


class NothingChosen(KdbenchError):
    """There are rows, and none meets the conditions."""


@dataclass(frozen=True)
class Choice:
    """Rows that meet every condition; an empty one is met by all.

    methods, pairs (teacher:student or (teacher, student); a run without a teacher serves every pair of its student):
    names or globs. epochs: of the recipe. split: test or holdout. since: a date or time (ISO, UTC where it says no
    zone) at or after which the run started. status: of `utils.status.Status`. A text of several has commas. Raises
    KdbenchError for a wrong kind of value, date or status.
    """

    methods: Sequence[str] = ()
    pairs: Sequence[str] = ()
    epochs: int | None = None
    split: str = ""
    since: str | date = ""
    status: Sequence[str] = ()

    def __post_init__(self) -> None:
        pairs = [pair_name(*pair) if is_pair(pair) else pair for pair in listed(self.pairs)]
        for name, values in {"methods": self.methods, "pairs": pairs, "status": self.status}.items():
            object.__setattr__(self, name, _names(name, values))
        if self.epochs is not None and as_int(self.epochs) is None:
            raise KdbenchError(f"epochs is a whole number, got {self.epochs!r}")
        if self.since:
            self._start()
        for name in self.status:
            if name not in list(Status):
                raise KdbenchError(f"unknown status {name!r}; known: {', '.join(Status)}")

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that meet the conditions."""
        chosen = rows
        if self.methods:
            chosen = chosen[[_fits(name, self.methods) for name in chosen["method"]]]
        if self.pairs:
            runs = zip(chosen["teacher"].fillna(""), chosen["student"], strict=True)
            chosen = chosen[[_serves(teacher, student, self.pairs) for teacher, student in runs]]
        if self.epochs is not None:
            chosen = chosen[_epochs(chosen) == self.epochs]
        if self.split:
            chosen = chosen[chosen["split"] == self.split]
        if self.since:
            chosen = chosen[
                pd.to_datetime(chosen["started_utc"], utc=True, format="ISO8601") >= self._start()
            ]
        if self.status:
            chosen = chosen[chosen["status"].isin(list(self.status))]
        return chosen

    def refusal(self, rows: pd.DataFrame) -> NothingChosen:
        """The error that none of these rows is chosen."""
        status = ", ".join(sorted(set(rows["status"])))
        return NothingChosen(f"no row has {self}; the rows have {span(rows)}; status {status}")

    def _start(self) -> datetime:
        try:
            start = datetime.fromisoformat(str(self.since))
        except ValueError:
            raise KdbenchError(
                f"since is a date or time such as 2026-03-01 or 2026-03-01T12:00, got {self.since!r}"
            ) from None
        return start if start.tzinfo else start.replace(tzinfo=UTC)

    def __str__(self) -> str:
        """'methods kd, dkd; epochs 30'; '' where all rows are chosen."""
        conditions = {
            "methods": ", ".join(self.methods),
            "pairs": ", ".join(self.pairs),
            "epochs": "" if self.epochs is None else str(self.epochs),
            "split": self.split,
            "since": str(self.since),
            "status": ", ".join(self.status),
        }
        return "; ".join(f"{name} {value}" for name, value in conditions.items() if value)


def _names(kind: str, value: Any) -> tuple[str, ...]:
    """A text with commas, or names, as names."""
    if isinstance(value, str):
        return tuple(split_commas(value))
    names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise KdbenchError(f"{kind} takes names or globs, got {value!r}")
    return names


ALL = Choice()


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _serves(teacher: str, student: str, patterns: Iterable[str]) -> bool:
    if teacher:
        return any(_fits(f"{teacher}{sign}{student}", patterns) for sign in (COLON, ARROW))
    return any(fnmatch.fnmatchcase(student, _of_student(pattern)) for pattern in patterns)


def _of_student(pattern: str) -> str:
    """The part of a pair's glob that is its student's; of one without a sign between the two, all of it."""
    return pattern.split(ARROW if ARROW in pattern else COLON, 1)[-1]


def _epochs(rows: pd.DataFrame) -> pd.Series:
    """The epochs of each row's recipe; of a row that does not say its recipe, those that are done."""
    planned = [setting.parse(text)["recipe"]["epochs"] if text else None for text in rows["facts"].fillna("")]
    return pd.Series(planned, rows.index, dtype=float).fillna(rows["epochs_done"])


def span(rows: pd.DataFrame) -> str:
    """What rows there are: 'methods ce, kd; pairs a:b; seeds 0; epochs 30; splits test'."""
    named = set(zip(rows["teacher"].fillna(""), rows["student"], strict=True))
    taught = {student for teacher, student in named if teacher}
    pairs = sorted(
        {pair_name(*pair) for pair in named if pair[0]} | ({student for _, student in named} - taught)
    )
    epochs = [f"{n:g}" for n in sorted(_epochs(rows).dropna().unique())]
    values = {
        "methods": sorted(set(rows["method"])),
        "pairs": pairs,
        "seeds": [f"{seed:.0f}" for seed in sorted(set(rows["seed"].dropna()))],
        "epochs": epochs,
        "splits": sorted(set(rows["split"])),
    }
    return "; ".join(f"{name} {_some(found)}" for name, found in values.items() if found)


def _some(names: Sequence[str]) -> str:
    """The names, or the first of them and how many there are."""
    more = [f"... ({len(names)})"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])
