"""The runs behind an entry of the leaderboard: attempts, parameters, costs and curves, as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kdbench.report.columns import Column
from kdbench.report.figures.curves import TERMS
from kdbench.report.leaderboard import Board
from kdbench.report.tables import Table

ATTEMPT = {  # column of the store -> heading and format
    "seed": ("seed", "{}"), "attempt": ("attempt", "{:.0f}"), "status": ("status", "{}"), "counted": ("counted", "{}"),
    "top1": ("top-1", "{:.2f}"), "top5": ("top-5", "{:.2f}"), "top1_best": ("best epoch", "{:.2f}"),
    "train_top1": ("train top-1", "{:.2f}"), "nll": ("NLL", "{:.3f}"), "ece": ("ECE", "{:.2f}"),
    "agree_teacher": ("agrees with teacher", "{:.2f}"), "kl_teacher": ("KL to teacher", "{:.3f}"),
    "epochs_done": ("epochs", "{:.0f}"), "train_s": ("train s", "{:.1f}"), "teacher_s": ("teacher s", "{:.1f}"),
    "data_s": ("data s", "{:.1f}"), "eval_s": ("eval s", "{:.1f}"),
    "img_per_s": ("img/s", "{:.0f}"), "peak_mem_mb": ("peak MB", "{:.0f}"), "cohort_size": ("cohort", "{:.0f}"),
    "extra_params": ("extra parameters", "{:,.0f}"), "device": ("device", "{}"), "git_commit": ("commit", "{:.10}"),
    "started_utc": ("started (UTC)", "{}"), "cell_id": ("cell", "{}"), "error": ("error", "{}"),
}  # fmt: skip
KNOWN = ["cell_id", "seed", "params", "method_version"]
RUN = ["cell_id", "run_id", "attempt"]
POINTS = 200_000  # of all curves of a page: it stays a few MB however many runs there are
FEW, MANY = 12, 60  # points of one curve


def details(
    boards: Sequence[Board],
    headings: Sequence[Sequence[Column]],
    attempts: pd.DataFrame,
    curves: pd.DataFrame,
) -> dict[str, Any]:
    """``entries``: table-label-pair -> the facts of the entry and its runs' ids; ``runs``: id -> attempts, curves.

    headings: the columns of each board, by `columns`. Everything is text but the curves, which are
    ``term -> [epochs, values]``, thinned to at most MANY points each (the first and the last are always there).
    """
    entries: dict[str, Any] = {}
    for i, (board, table) in enumerate(zip(boards, headings, strict=True)):
        runs = _by_place(board.table)
        numbers = board.entries.to_dict("index")
        for column in table:
            if column.pair:
                for j, (label, text) in enumerate(zip(board.labels, column.entries, strict=True)):
                    own = runs.get((label, column.pair))
                    if own is not None:
                        key = f"{i}-{j}-{board.table.pairs.index(column.pair)}"
                        entries[key] = _entry(board, label, column.pair, text.marked(str), numbers, own)
    runs_shown = {run for entry in entries.values() for run in entry["runs"]}
    counted = pd.concat([board.table.rows[RUN] for board in boards])
    histories, lines = _attempts(attempts, runs_shown, counted), _curves(curves, runs_shown)
    return {
        "attempt": [heading for heading, _ in ATTEMPT.values()],
        "terms": TERMS,
        "entries": entries,
        "runs": {
            run: {"attempts": histories.get(run, []), "curves": lines.get(run, {})}
            for run in sorted(runs_shown)
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


def _entry(
    board: Board, label: str, pair: str, text: str, numbers: dict, runs: dict[str, list]
) -> dict[str, Any]:
    entry = numbers[label, pair]
    facts = [("top-1, last epoch", text)]
    if label != board.baseline and not np.isnan(entry["delta"]):
        interval = "" if np.isnan(entry["low"]) else f" [{entry['low']:+.2f}, {entry['high']:+.2f}]"
        seeds = f"{entry['delta_n']} shared seed{'s' * (entry['delta_n'] > 1)}"
        facts.append((f"Δ vs {board.baseline}, {seeds}", f"{entry['delta']:+.2f}{interval}"))
    if entry["skipped"]:
        facts.append(("skipped", entry["skipped"]))
    if entry["diverged"]:
        facts.append(("diverged", f"{entry['diverged']} of {entry['diverged'] + entry['n']} seeds"))
    facts.append(("method version", f"{runs['method_version'][-1]:g}"))
    return {
        "title": f"{label} on {pair}",
        "facts": facts,
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


def _curves(curves: pd.DataFrame, runs_shown: set[str]) -> dict[str, dict[str, list[list]]]:
    rows = curves[curves["term"].isin(list(TERMS)) & curves["cell_id"].isin(runs_shown)].dropna(
        subset=["value"]
    )
    rows = rows[np.isfinite(rows["value"].astype(float))]
    rows = rows.drop_duplicates(["cell_id", "term", "epoch"], keep="last")
    rows = rows.sort_values(["cell_id", "term", "epoch"], kind="stable")
    groups = rows.groupby(["cell_id", "term"])
    most = int(np.clip(POINTS // max(groups.ngroups, 1), FEW, MANY)) - 1
    place, last = groups.cumcount(), groups["epoch"].transform("size") - 1
    thinned = rows[
        (place == 0) | (place * most // last.clip(lower=1) != (place - 1) * most // last.clip(lower=1))
    ]
    lines: dict[str, dict[str, list[list]]] = {}
    values = [float(f"{value:.4g}") for value in thinned["value"]]
    for run, term, epoch, value in zip(
        thinned["cell_id"], thinned["term"], thinned["epoch"], values, strict=True
    ):
        line = lines.setdefault(run, {}).setdefault(term, [[], []])
        line[0].append(int(epoch))
        line[1].append(value)
    return lines
