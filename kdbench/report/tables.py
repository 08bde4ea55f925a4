"""Rows of results -> tables, one per data set, split, recipe, precision and setting: unlike runs never share one."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdbench.data.catalog import classes_of
from kdbench.results import setting, store
from kdbench.results.statistics import summary
from kdbench.results.statistics.pairs import overlap
from kdbench.utils.hashing import canonical, digest
from kdbench.utils.status import Status

ARROW = " -> "
CONDITIONS = ["dataset", "split", "recipe_id", "precision"]


@dataclass(frozen=True)
class Table:
    """The runs under one set of conditions.

    dataset: its name, with the start of its images' hash where several data sets have one name. precision: '' where the
    rows do not say.
    rows: one line per run and pair that it serves, with the columns of the store and ``label`` (method and what
    the user set), ``pair`` (teacher -> student) and those of `_timed`. set_aside: runs left
    out because newer ones of another version or other parameters carry the same label.
    setting: in words, what its runs' setting has otherwise than that of the suite's other tables; '' where there is
    one setting. codes: methods that were run by several states of their code, each with a line of its own.
    """

    dataset: str
    split: str
    recipe_id: str
    precision: str
    rows: pd.DataFrame
    set_aside: int
    setting: str = ""
    setting_id: str = ""
    codes: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[str]:
        """The pairs, sorted."""
        return sorted(self.rows["pair"].unique())

    @property
    def labels(self) -> list[str]:
        """The labels, sorted."""
        return sorted(self.rows["label"].unique())

    @property
    def finished(self) -> pd.DataFrame:
        """The rows with a result."""
        return self.rows[self.rows["status"] == Status.OK]

    @functools.cached_property
    def overlaps(self) -> dict[str, pd.DataFrame]:
        """Which pairs have runs in common: as of `statistics.pairs.overlap`."""
        return overlap(self.finished)

    @property
    def repeated(self) -> bool:
        """Whether something was run with two seeds on one pair: else no spread is known."""
        return bool(self.finished.duplicated(["label", "pair"]).any())

    @property
    def swept(self) -> list[str]:
        """Labels of settings that were tried on the test split beside another one of the same method, sorted.

        The best of them is a choice that the test images made.
        """
        tried = self.finished[(self.split == "test") & (self.finished["variant"] != "")]
        tuned = tried["variant"].str.startswith("tuned (").rename("tuned")  # chosen on the holdout split
        several = tried.groupby(["method", tuned])["variant"].transform("nunique") > 1
        return sorted(tried[several]["label"].unique())

    @property
    def teacher(self) -> str:
        """The one teacher of all pairs; '' where there are several, or none."""
        named = self.rows["teacher"].unique()
        return str(named[0]) if len(named) == 1 else ""

    @property
    def chance(self) -> float:
        """Top-1 of guessing, percent; 0 for a data set that kdbench does not know."""
        classes = classes_of(self.dataset.partition("#")[0].partition(" (")[0])
        return 100.0 / classes if classes else 0.0

    @property
    def epochs(self) -> str:
        """How many epochs the finished runs took: '240'."""
        return "/".join(f"{n:g}" for n in sorted(self.finished["epochs_done"].dropna().unique())) or "no"

    @property
    def heading(self) -> str:
        """Names the table, and no other of its suite."""
        precision = f" in {self.precision}" if self.precision else ""
        setting = f", setting {self.setting_id}" if self.setting_id else ""
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != '1')}"
        return f"{self.dataset}, {self.split} split, {epochs}{precision} (recipe {self.recipe_id}{setting})"

    def wide(self, value: str = "top1") -> pd.DataFrame:
        """[(pair, seed) x label] of the finished runs."""
        return summary.wide(self.finished, value, index=["pair", "seed"])


def tables(attempts: pd.DataFrame) -> list[Table]:
    """All attempts of a suite -> its tables; the test split first, then the longest recipe."""
    rows = store.records(attempts).sort_values(["started_utc", "attempt"], kind="stable", ignore_index=True)
    rows[store.TEXT] = rows[store.TEXT].fillna("")
    rows["label"] = (rows["method"] + " " + rows["variant"]).str.strip()
    rows = _timed(rows)
    for _, split in rows.groupby("split"):
        rows.loc[split.index, "dataset"] = _distinct(split["dataset"], split["split_id"])
    rows["recipe"] = [_recipe(text) for text in rows["facts"]]
    groups = summary.join_pairs(rows, ["recipe"]).groupby(CONDITIONS)
    return sorted((table for _, group in groups for table in _tables(group)), key=_order)


def _timed(rows: pd.DataFrame) -> pd.DataFrame:
    """With what an epoch took: ``epoch_s``, the cell's own steps; ``alone_s``, with the teacher's outputs and data.

    alone_s is NaN where a row does not hold them, or the teacher's came from a cache. ``machine``: what seconds can be
    compared on: device, threads, jobs on that device, and whether the cell was trained alone or took turns with others.
    ``beside``: equal for the cells of one cohort; NaN where the row does not say when it was trained.
    """
    epochs = rows["epochs_done"].where(rows["epochs_done"] > 0)
    teacher = rows["teacher_s"].mask(rows["teacher"] == "", 0.0)
    whole = (rows["train_s"] + teacher + rows["data_s"]).where(rows["teacher_cache"] == "")
    cohort = np.select([rows["cohort_size"] == 1, rows["cohort_size"] > 1], ["alone", "shared"], "unknown")
    threads = pd.to_numeric(rows["threads"]).map("{:g}".format)
    jobs = pd.to_numeric(rows["jobs"]).fillna(1).map("{:g}".format)
    machine = rows["device"] + "|" + threads + "|" + jobs + "|" + cohort
    started = rows["started_utc"].mask(rows["started_utc"] == "")
    beside = started + "|" + rows["device"] + rows["cell_id"].where(cohort == "alone", "")
    return rows.assign(
        epoch_s=rows["train_s"] / epochs, alone_s=whole / epochs, machine=machine, beside=beside
    )


def _recipe(facts: str) -> str:
    """The recipe that a row was trained by, its pair's changes included; '' where it does not say."""
    return canonical(setting.parse(facts)["recipe"]) if facts else ""


def _order(table: Table) -> tuple:
    longest = table.rows["epochs_done"].fillna(0).max()
    return table.split != "test", -longest, table.dataset, table.recipe_id


def _tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of rows under one set of conditions: one per setting, that of the newest row first."""
    rows = rows.reset_index(drop=True)
    pairs = _pair_names(rows)
    settings = [
        setting.for_pair(setting.parse(text), student, pair)
        for text, student, pair in zip(rows["facts"], rows["student"], pairs, strict=True)
    ]
    groups = setting.consistent(settings)
    if len(groups) == 1:
        return [_table(rows)]
    facts = [contested for contested, _ in groups]
    ids = [digest(own) for own in facts]
    return [
        _table(
            rows.iloc[members],
            setting.words(own, [other for other in facts if other is not own]),
            digest(own)[: _digits(ids)],
        )
        for own, members in groups
    ]


def _pair_names(rows: pd.DataFrame) -> list[str]:
    teachers = _distinct(rows["teacher"], rows["teacher_id"])
    return [f"{t}{ARROW}{s}" if t else s for t, s in zip(teachers, rows["student"], strict=True)]


def _table(rows: pd.DataFrame, words: str = "", setting_id: str = "") -> Table:
    newest, codes = _by_code(_newest(rows))
    aside = rows["cell_id"].nunique() - newest["cell_id"].nunique()
    dataset, split, recipe, precision = (str(rows[key].iloc[0]) for key in CONDITIONS)
    newest = newest.assign(pair=_pair_names(newest))
    return Table(dataset, split, recipe, precision, newest, aside, words, setting_id, codes)


def _by_code(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A label of its own for the runs of a method by each older state of its code; and the labels with several."""
    older = rows["code_hash"] != rows.groupby("label")["code_hash"].transform("last")
    marks = "code " + rows["code_hash"].str[: _digits(rows["code_hash"])].replace("", "unknown")
    labels = rows["label"].mask(older, rows["label"] + " (" + marks + ")")
    return rows.assign(label=labels), tuple(sorted(set(labels[older])))


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    """One setting under each label, one run for each seed.

    Newer method versions win, then runs without a teacher cache, then later rows.
    """
    version = rows.groupby("label")["method_version"].transform("max")
    rows = rows[rows["method_version"] == version]
    rows = rows[rows["params"] == rows.groupby(["label", *summary.PAIR])["params"].transform("last")]
    order = rows["teacher_cache"].eq("").sort_values(kind="stable").index
    return rows.loc[order].drop_duplicates(["label", *summary.PAIR, "seed"], keep="last").sort_index()


def _distinct(names: pd.Series, hashes: pd.Series) -> list[str]:
    """Each name, with the start of its hash where one name has several."""
    several = hashes.groupby(names).unique()
    return [
        f"{name}#{key[: _digits(several[name])] or 'unknown'}" if len(several[name]) > 1 else name
        for name, key in zip(names, hashes, strict=True)
    ]


def _digits(ids: Iterable[str]) -> int:
    """How many leading characters, at least 4, tell the ids apart."""
    unique = set(ids)
    return next(n for n in range(4, 65) if len({i[:n] for i in unique}) == len(unique))
