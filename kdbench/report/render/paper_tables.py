"""The tables that papers print, ours and theirs: a column for each pair; teacher and plain student come first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from kdbench.report.markdown import escape
from kdbench.report.render import latex
from kdbench.report.render.bibliography import cite
from kdbench.report.render.latex import Tex
from kdbench.report.tables import ARROW
from kdbench.utils.method_facts import MethodFacts, shipped
from kdbench.utils.papers import FAMILIES

OTHER = "other"  # plug-ins
TOP = ("teacher", "ce")
NAMES = {"ce": "student (ce)"}
FILES = SAME, CROSS, TWO, IMAGENET = "paper_same", "paper_cross", "paper_twoview", "paper_imagenet"
NONE, DIVERGED, SKIPPED = "–", "✗", "n/a"


class Layout(NamedTuple):
    """One of the literature's tables: its file's name, its title, and its lines of the reproduction's frame."""

    name: str
    title: str
    lines: pd.DataFrame


def layouts(data: pd.DataFrame) -> list[Layout]:
    """Same and cross architecture and two views; or, on ImageNet, one with top-1 and top-5. Empty ones are left out.

    data: see `reproduction.frame`. A data set of which nothing is published has none.
    """
    if not (data["printed"] != "").any():
        return []
    if (data["dataset"] == "imagenet").all():
        lines = _tried(data)
        return [Layout(IMAGENET, "ImageNet, top-1 and top-5", lines)] if len(lines) else []
    data = data[data["metric"] == "top1"]
    two_view = [name for name, facts in shipped().items() if facts.two_view]
    top, two = data["method"].isin(TOP), data["method"].isin(two_view)
    if (data["protocol"] == "twoview").all():
        two |= True
    same = data["teacher"].map(family) == data["student"].map(family)
    everything = [
        Layout(SAME, "teacher and student of the same family", _tried(data[same & (top | ~two)])),
        Layout(CROSS, "teacher and student of different families", _tried(data[~same & (top | ~two)])),
        Layout(TWO, "methods that train on two views", _tried(data[top | two])),
    ]
    return [layout for layout in everything if len(layout.lines)]


def _tried(lines: pd.DataFrame) -> pd.DataFrame:
    """Without the pairs and the methods that were not run here; nothing where only plain students were."""
    tried = (lines["n"] + lines["diverged"] + lines["skipped"] > 0) & ~lines["method"].isin(TOP)
    pairs, labels = (
        tried.groupby([lines["table"], lines[key]]).transform("any") for key in ("pair", "label")
    )
    return lines[pairs & (labels | lines["method"].isin(TOP))]


def family(model: str) -> str:
    """The leading letters of a model's name: resnet, wrn, vgg, mobilenetv, shufflenetv ..."""
    letters = re.match(r"[a-z]*", model.removeprefix("timm/"))
    return letters.group() if letters else ""


def markdown(suite: str, layout: Layout, notes: Sequence[str], footer: Sequence[str]) -> str:
    """A table for each set of conditions; entries of three lines: ours, published, difference and verdict."""
    parts = [f"# {suite}: {layout.title}"]
    for heading, lines in layout.lines.groupby("table", sort=False):
        header, rows = _grid(lines, "{} [{}]".format)
        text = [
            "| " + " | ".join(escape(h) for h in header) + " |",
            "|---" + "|---:" * (len(header) - 1) + "|",
        ]
        for row in rows:
            entries = ["<br>".join(map(escape, entry)) for entry in row]
            text.append("| " + " | ".join(entries) + " |")
        parts += [f"## {heading}", "\n".join(text)]
    bullets = "\n".join(f"- {escape(note)}" for note in notes)
    return "\n\n".join([*parts, bullets, "---", *footer]) + "\n"


def tex(suite: str, layout: Layout, notes: Sequence[str], footer: Sequence[str]) -> str:
    """booktabs; a method takes up to three rows: ours, the published number with its \\cite, difference and verdict."""
    parts = [latex.PACKAGES]
    for number, (heading, lines) in enumerate(layout.lines.groupby("table", sort=False)):
        header, rows = _grid(lines, lambda text, keys: Tex(f"{latex.escape(text)} {cite(keys.split())}"))
        texts = []
        for name, *entries in rows:
            if not any(entries):
                texts.append([Tex(rf"\textit{{{latex.escape(name[0])}}}"), *("" for _ in entries)])
            for i in range(max(map(len, entries))):
                texts.append(
                    ["" if i else name[0], *(entry[i] if i < len(entry) else "" for entry in entries)]
                )
        label = f"tab:{suite}-{layout.name}{f'-{number}' if number else ''}"
        header = [text.replace(ARROW, "\n") for text in header]
        parts.append(
            latex.table(header, texts, f"{suite}: {layout.title}. {heading}", label, [*notes, *footer])
        )
    return "\n\n".join(parts)


def csv(suite: str, layout: Layout, footer: Sequence[str]) -> str:
    """One line per table, pair, method and metric, in the table's order, full digits."""
    lines = _ordered(layout.lines).drop(columns=["order"])
    whole = lines.assign(suite=suite, provenance=" ".join(footer))
    return whole.to_csv(index=False, lineterminator="\n")


Entry = tuple[str, ...]  # lines of text


def _grid(lines: pd.DataFrame, cited: Callable[[str, str], str]) -> tuple[list[str], list[list[Entry]]]:
    """Lines of one table -> (header, rows); a row's first entry is its name; the row of a group has empty entries.

    cited: a published number and the keys of its sources -> both as one text.
    """
    lines = _ordered(lines)
    metrics = sorted(lines["metric"].unique())
    places = [(pair, metric) for pair in sorted(lines["pair"].unique()) for metric in metrics]
    header = ["method", *(pair if metric == "top1" else f"{pair}, {metric}" for pair, metric in places)]
    methods: dict[tuple[str, str], dict[tuple[str, str], Entry]] = {}
    for entry in lines.to_dict("records"):
        own = methods.setdefault((entry["group"], entry["label"]), {})
        own[entry["pair"], entry["metric"]] = tuple(_parts(entry, cited))
    rows: list[list[Entry]] = []
    for group, several in itertools.groupby(methods.items(), key=lambda item: item[0][0]):
        if group:
            rows.append([(group,), *([()] * len(places))])
        for (_, label), own in several:
            rows.append([(NAMES.get(label, label),), *(own.get(place, (NONE,)) for place in places)])
    return header, rows


def _ordered(lines: pd.DataFrame) -> pd.DataFrame:
    """With the columns ``group`` and ``order``: the teacher, the plain student, then families by year."""
    places = {facts.name: (facts.family or OTHER, _year(facts)) for facts in shipped().values()}
    places |= {method: ("", i) for i, method in enumerate(TOP)}
    placed = [places.get(method, (OTHER, 0)) for method in lines["method"]]
    groups = ["", *FAMILIES, OTHER]
    order = [10_000 * groups.index(group) + place for group, place in placed]
    lines = lines.assign(group=[group for group, _ in placed], order=order)
    return lines.sort_values(["order", "label", "pair", "metric"], kind="stable")


def _year(facts: MethodFacts) -> int:
    """The paper's year; after all others without one."""
    return facts.paper.year if facts.paper else 9999


def _parts(entry: Mapping, cited: Callable[[str, str], str]) -> Iterator[str]:
    """Ours, published, difference and verdict, as far as there are any."""
    yield ours(entry)
    if not entry["printed"]:
        return
    rule = "" if entry["method"] == "teacher" else f" {entry['rule']}"
    yield cited(f"{entry['printed']}{rule}", entry["keys"])
    if entry["verdict"]:
        difference = "" if pd.isna(entry["delta"]) else f"{entry['delta']:+.2f} "
        yield difference + entry["verdict"] + (" †" if entry["note"] else "")


def ours(entry: Mapping) -> str:
    """'70.70 ± 0.10 (3)', with the runs that diverged; – where nothing was run."""
    if entry["method"] == "teacher":
        return f"{entry['mean']:.2f}"
    failed = f" {DIVERGED}{entry['diverged']}" if entry["diverged"] else ""
    if not entry["n"]:
        return DIVERGED if entry["diverged"] else SKIPPED if entry["skipped"] else NONE
    spread = f" ± {entry['std']:.2f}" if entry["n"] > 1 else ""
    return f"{entry['mean']:.2f}{spread} ({entry['n']}){failed}"
