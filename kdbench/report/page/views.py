"""One table as the page shows it: every metric and every choice of pairs, all numbers in words.

What a reader can choose is computed here; the page's script only picks from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdbench.report import columns, notes
from kdbench.report.columns import Column, Text
from kdbench.report.costs import COSTS
from kdbench.report.figures import looks, style
from kdbench.report.leaderboard import Board, board
from kdbench.report.metrics import TOP1, measured
from kdbench.report.page import compare, curves, per_class, runs
from kdbench.report.page.scopes import restricted, scopes
from kdbench.report.render import latex

LEAD = ("mean", "Δ")  # starts of the summary's headings that come before the pairs: a phone shows them first
WORST = 1e30  # in place of an infinity, which JSON has not


def view(whole: Board, epochs: pd.DataFrame, details: Sequence[Path]) -> dict[str, Any]:
    """All that the page needs of the table of a board of top-1.

    ``labels`` are in the board's order, and cells of every column are in that of the labels. epochs: curves of all
    cells, in long form. details: folders of the predictions that runs saved.
    """
    choices = scopes(whole.table.pairs)
    by_scope = [_boards(whole, scope.pairs) for scope in choices]
    metrics = [_metric([boards[name] for boards in by_scope], whole.labels) for name in by_scope[0]]
    costs = [_cost([boards[TOP1.column] for boards in by_scope], whole.labels, name) for name in COSTS]
    return {
        "heading": whole.table.heading,
        "baseline": whole.baseline,
        "pairs": whole.table.pairs,
        "labels": whole.labels,
        "names": [latex.escape(label) for label in whole.labels],
        "methods": [label.split()[0] for label in whole.labels],
        "looks": [_look(label) for label in whole.labels],
        "teachers": _teachers(whole),
        "scopes": [
            {"title": scope.title, "pairs": [whole.table.pairs.index(pair) for pair in scope.pairs]}
            for scope in choices
        ],
        "metrics": [*metrics, *(cost for cost in costs if cost)],
        "curves": curves.of_methods(whole, epochs),
        "classes": per_class.of_pairs(whole, details),
        "entries": runs.entries(whole),
    }


def _look(label: str) -> tuple[str, int]:
    """Colour and place of the dash, as in the figures."""
    look = looks.look(label)
    return look.color, looks.DASHES.index(look.linestyle)


def _boards(whole: Board, pairs: Sequence[str]) -> dict[str, Board]:
    """metric -> the board of these pairs; top-1 first."""
    every = len(pairs) == len(whole.table.pairs)
    table = whole.table if every else restricted(whole.table, pairs)
    return {
        metric.column: whole if every and metric is TOP1 else board(table, whole.baseline, metric)
        for metric in measured(whole.table)
    }


def _metric(boards: Sequence[Board], labels: Sequence[str]) -> dict[str, Any]:
    """One metric: the entries of every pair, the summary of every scope, and every two of ``labels`` compared."""
    whole, metric = boards[0], boards[0].metric
    differences = compare.differences_of(whole, labels)
    return {
        "key": metric.column,
        "title": metric.title,
        "words": metric.words,
        "unit": metric.unit,
        "lower": not metric.higher,
        "legend": notes.legend(whole.baseline, metric),
        "pairs": [_column(column, labels, whole.labels) for column in columns.pairs(whole)],
        "scopes": [_summary(one, labels, columns.summary(one)) for one in boards],
        "compared": [differences.get(pair, []) for pair in whole.table.pairs],
        "over": differences.get(compare.OVER, []),
    }


def _summary(of: Board, labels: Sequence[str], shown: Iterable[Column]) -> dict[str, Any]:
    """The numbers over the pairs of one board.

    ``order``: labels best first; ``bars``: difference and its limits; ``reach``: how far from 0 charts of them go.
    """
    said = columns.said_below(of)
    of_label = of.summary.to_dict("index")
    values = of.summary["mean"] if of.over_pairs() else of.entries["mean"].droplevel("pair")
    bars = [
        [_number(of_label[label][key]) for key in ("delta", "low", "high")] if label in of_label else []
        for label in labels
    ]
    return {
        "order": [labels.index(label) for label in of.labels],
        "columns": [
            _column(one, labels, of.labels, one.heading.startswith(LEAD))
            for one in shown
            if one.heading not in said
        ],
        "means": [_number(values.get(label, np.nan)) for label in labels],
        "bars": bars,
        "reach": _number(style.reach(of.summary["delta"])),
        "notes": _arrows(notes.notes(of)),
    }


def _cost(boards: Sequence[Board], labels: Sequence[str], name: str) -> dict[str, Any]:
    """A cost in the form of `_metric`; {} where no row has it."""
    whole = boards[0]
    if not whole.summary[name].notna().any():
        return {}
    word, about = columns.COST_WORDS[name]
    parts = []
    for of in boards:
        column = columns.cost(of, name)
        ranked = of.summary[name].sort_values(kind="stable").index
        values = of.summary[name]
        parts.append(
            {
                "order": [labels.index(label) for label in ranked],
                "columns": [_column(column, labels, of.labels, lead=True)] if of.over_pairs() else [],
                "means": [_number(values.get(label, np.nan)) for label in labels],
                "bars": [],
                "notes": _arrows(notes.costs(of)),
            }
        )
    return {
        "key": name,
        "title": f"cost, {word}",
        "words": f"{about[0].lower()}{about[1:]} (lower is better)",
        "unit": "",
        "lower": True,
        "legend": notes.cost_legend(whole.baseline),
        "pairs": [_column(column, labels, whole.labels) for column in columns.cost_pairs(whole, name)],
        "scopes": parts,
        "compared": [[] for _ in whole.table.pairs],
        "over": [],
    }


def _column(column: Column, labels: Sequence[str], own: Sequence[str], lead: bool = False) -> dict[str, Any]:
    texts = dict(zip(own, column.entries, strict=True))
    return {
        "heading": column.heading,
        "tex": latex.escape(column.heading),
        "about": column.about,
        "lower": column.lower,
        "lead": lead,
        "cells": [_cell(texts.get(label, Text(columns.NONE))) for label in labels],
    }


def _cell(text: Text) -> list[Any]:
    """[text, what it is sorted by], and else also what follows the text, whether it is bold, all as LaTeX."""
    tex = text.marked(latex.bold, latex.escape)
    short = [text.text, _number(text.value)]
    return short if tex == text.text else [*short, text.after, int(text.bold), tex]


def _number(value: float) -> float | None:
    if np.isnan(value):
        return None
    return float(f"{value:.6g}") if np.isfinite(value) else float(np.copysign(WORST, value))


def _arrows(lines: Iterable[str]) -> list[str]:
    return [line.replace("->", "→") for line in lines]


def _teachers(of: Board) -> list[str]:
    """Top-1 of each pair's teacher in words; '' where no row says it."""
    rows = of.table.rows.dropna(subset=["teacher_top1"])
    reached: Mapping[str, float] = rows.groupby("pair")["teacher_top1"].last().to_dict()
    return [f"{reached[pair]:{TOP1.form}}" if pair in reached else "" for pair in of.table.pairs]
