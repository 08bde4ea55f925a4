"""The runs behind an entry of the leaderboard: attempts, parameters, costs and curves, as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kdbench.report.columns import pairs
from kdbench.report.leaderboard import Board
from kdbench.report.markdown import interval
from kdbench.report.page import curves as lines
from kdbench.report.tables import Table

ATTEMPT = {  # column of the store -> heading and format
    "seed": ("seed", "{}"), "cell_id": ("cell", "{}"), "attempt": ("attempt", "{:.0f}"),
    "status": ("status", "{}"), "counted": ("counted", "{}"),
    "top1": ("top-1", "{:.2f}"), "top5": ("top-5", "{:.2f}"), "top1_best": ("best epoch", "{:.2f}"),
    "train_top1": ("train top-1", "{:.2f}"), "nll": ("NLL", "{:.3f}"), "ece": ("ECE", "{:.2f}"),
    "agree_teacher": ("agrees with teacher", "{:.2f}"), "kl_teacher": ("KL to teacher", "{:.3f}"),
    "epochs_done": ("epochs", "{:.0f}"), "train_s": ("train s", "{:.1f}"), "teacher_s": ("teacher s", "{:.1f}"),
    "data_s": ("data s", "{:.1f}"), "eval_s": ("eval s", "{:.1f}"),
    "img_per_s": ("img/s", "{:.0f}"), "peak_mem_mb": ("peak MB", "{:.0f}"), "cohort_size": ("cohort", "{:.0f}"),
    "student_params": ("parameters", "{:,.0f}"), "extra_params": ("extra parameters", "{:,.0f}"),
    "macs": ("MACs", "{:,.0f}"), "device": ("device", "{}"), "git_commit": ("commit", "{:.10}"),
    "started_utc": ("started (UTC)", "{}"), "run_id": ("run", "{}"), "error": ("error", "{}"),
}  # fmt: skip
KNOWN = ["cell_id", "seed", "params", "method_version"]
RUN = ["cell_id", "run_id", "attempt"]


def entries(board: Board) -> dict[str, dict[str, Any]]:
    """'i-j', the places of label and pair -> the facts of the entry, its parameters, and its runs' ids and seeds."""
    runs = _by_place(board.table)
    numbers = board.entries.to_dict("index")
    result = {}
    for j, column in enumerate(pairs(board)):
        for i, (label, text) in enumerate(zip(board.labels, column.entries, strict=True)):
            if (label, column.pair) in runs:
                entry = numbers[label, column.pair]
                facts = _facts(board, label, text.marked(str), entry)
                result[f"{i}-{j}"] = _entry(facts, runs[label, column.pair])
    return result


def histories(boards: Sequence[Board], attempts: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Of every run in the boards its attempts, as texts under ``headings``, and its curves (see `curves.of_runs`)."""
    counted = pd.concat([board.table.rows[RUN] for board in boards])
    shown = set(counted["cell_id"])
    texts, drawn = _attempts(attempts, shown, counted), lines.of_runs(curves, shown)
    return {
        "headings": [heading for heading, _ in ATTEMPT.values()],
        "runs": {
            run: {"attempts": texts.get(run, []), "curves": drawn.get(run, {})} for run in sorted(shown)
        },
    }


def _by_place(table: Table) -> dict[tuple[str, str], dict[str, list]]:
    """(label, pair) -> its runs' values by column, in the order of seeds."""
    rows = table.rows.sort_values(["seed", "cell_id"], kind="stable")
    by_place: dict[tuple[str, str], dict[str, list]] = {}
    for label, pair, *values in rows[["label", "pair", *KNOWN]].itertuples(index=False):
        lists = by_place.setdefault((label, pair), {column: [] for column in KNOWN})
        for column, value in zip(KNOWN, values, strict=True):
            lists[column].append(value)
    return by_place


def _facts(board: Board, label: str, text: str, entry: dict) -> list[tuple[str, str]]:
    facts = [("top-1, last epoch", text)]
    if label != board.baseline and not np.isnan(entry["delta"]):
        seeds = f"{entry['delta_n']} shared seed{'s' * (entry['delta_n'] > 1)}"
        difference = interval(entry["delta"], entry["low"], entry["high"])
        facts.append((f"Δ vs {board.baseline}, {seeds}", difference))
    if entry["skipped"]:
        facts.append(("skipped", entry["skipped"]))
    if entry["diverged"]:
        facts.append(("diverged", f"{entry['diverged']} of {entry['diverged'] + entry['n']} seeds"))
    return facts


def _entry(facts: list[tuple[str, str]], runs: dict[str, list]) -> dict[str, Any]:
    return {
        "facts": [*facts, ("method version", f"{runs['method_version'][-1]:g}")],
        "params": _params(runs["params"][-1]),
        "runs": runs["cell_id"],
        "seeds": runs["seed"],
    }


def _params(text: str) -> list[tuple[str, str]]:
    try:
        return [(key, json.dumps(value)) for key, value in json.loads(text).items()]
    except (ValueError, AttributeError):  # someone else's file
        return [("params", text)]


def _attempts(
    attempts: pd.DataFrame, runs_shown: set[str], counted: pd.DataFrame
) -> dict[str, list[list[str]]]:
    """Cell id -> its attempts as texts; the one in the table is marked as counted."""
    rows = attempts[attempts["cell_id"].isin(runs_shown)]
    in_table = rows.set_index(RUN).index.isin(counted.set_index(RUN).index)
    rows = rows.assign(counted=np.where(in_table, "yes", "no"))
    columns = []
    for name, (_, form) in ATTEMPT.items():
        values = rows[name].astype(object).where(rows[name].notna(), None)
        columns.append([_text(value, form) for value in values])
    histories: dict[str, list[list[str]]] = {}
    for run, *texts in zip(rows["cell_id"], *columns, strict=True):
        histories.setdefault(run, []).append(texts)
    return histories


def _text(value: Any, form: str) -> str:
    try:
        return "" if value is None else form.format(value)
    except ValueError:  # a text where a number is usual
        return str(value)
