"""The rows of results/<suite>.tuning.csv: which trial of a study is best, and what its values say. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.results import store
from kdbench.results.schema import TRIAL_COLUMNS
from kdbench.utils.search_space import Range, Space, of_table
from kdbench.utils.status import Status

EDGE = 0.02  # a value this near to the end of its range, as a share of it, is at the edge


def read_trials(file: Path) -> pd.DataFrame:
    """The rows of a file of trials, each trial once: the one that was written first."""
    return store.read(file, TRIAL_COLUMNS).drop_duplicates(["study", "trial"], ignore_index=True)


def latest(trials: pd.DataFrame) -> pd.DataFrame:
    """Of each method and pair the rows of the study that was worked on last."""
    ordered = trials.sort_values("ended_utc", kind="stable")
    last = ordered.drop_duplicates(["method", "teacher", "student"], keep="last")["study"]
    return trials[trials["study"].isin(last)]


def values_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial: parameters of the method and fields of the recipe."""
    return json.loads(row["params"]) | json.loads(row["recipe"])


def space_of(row: Mapping[str, Any]) -> Space:
    """The ranges that a trial was drawn from."""
    return {key: of_table(table) for key, table in json.loads(row["space"]).items()}


def best(rows: pd.DataFrame) -> dict[str, Any] | None:
    """The row of a study's best trial, of equals the first; None where none came to an accuracy."""
    good = rows[rows["status"] == Status.OK].sort_values("trial")
    return None if good.empty else good.loc[good["top1"].idxmax()].to_dict()


def at_edge(row: Mapping[str, Any]) -> list[str]:
    """The parameters of a trial that are at an end of their range: the best value may lie outside."""
    space = space_of(row)
    return [
        key
        for key, value in values_of(row).items()
        if isinstance(values := space[key], Range) and not EDGE < values.share(value) < 1 - EDGE
    ]
