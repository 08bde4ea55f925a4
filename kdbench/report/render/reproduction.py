"""reproduction.md and .csv, the paper tables and the scatter: writes what `reproduction` finds, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from kdbench.report import reproduction
from kdbench.report.figures import Drawing
from kdbench.report.figures import published as scatter
from kdbench.report.figures.files import Picture, in_markdown
from kdbench.report.markdown import escape, pipes
from kdbench.report.order import count
from kdbench.report.render import bibliography, paper_tables
from kdbench.results import published
from kdbench.utils.text import fold, wrap

FIGURE = "published"
TITLE = "published numbers beside ours"
LEGEND = [
    "Ours: mean ± std (ddof 1) of the last epoch over (n) seeds. Δ: ours - published, by the published number's own "
    "rule: where it is a best epoch, the best of our evaluated epochs (`best - last` higher; ranked nowhere), else our "
    "last. Of several published numbers the nearest counts.",
    "Verdict: differs, where the published number is outside the interval that our runs predict for it, with its own "
    "error (its std where printed, else the error of our runs, over its runs, one where it is not said of how many), "
    "by Holm over the table; agrees, where the true difference is shown to be within 0.5 points (two one-sided tests); "
    "else undecided. The error is pooled over the methods of a table. Between two published numbers ours differs from "
    "neither. A best epoch has a verdict where every epoch of ours after the last milestone was evaluated (else: no "
    "best epoch); an unknown or only probable rule is bracketed by our last and our best epoch.",
    "Rule: the epoch that is published: last, best (chosen on the test set) or unknown. "
    "A range: sources contradict each other. Only numbers of this suite's protocol are listed. Papers often tune "
    "parameters by pair; ours are the suite's.",
]
WEAK = "† {}: another teacher than the literature's."


def drawing(data: pd.DataFrame) -> Drawing:
    """The figure of `reproduction.frame`."""
    return Drawing(FIGURE, "Ours against published accuracies", scatter.frame(data), scatter.draw)


def write(
    folder: Path, suite: str, data: pd.DataFrame, footer: Sequence[str], shown: Sequence[Picture] = ()
) -> str:
    """Write reproduction.md and .csv, paper_*.md, .csv and .tex and published.bib into ``folder``; return the first.

    data: `reproduction.frame`; shown: its figure, where there is one. The text that is returned is at most 80 columns
    wide. Paper tables are written where something is published of the suite's data; reproduction.md says why, where
    they are not.
    """
    layouts = paper_tables.layouts(data)
    names = _sources(data)
    (folder / "reproduction.md").write_text(markdown(suite, data, names, layouts, shown, footer), "utf-8")
    whole = data.assign(suite=suite, provenance=" ".join(footer))
    (folder / "reproduction.csv").write_text(whole.to_csv(index=False, lineterminator="\n"), "utf-8")
    earlier = [f"{name}.{kind}" for name in paper_tables.FILES for kind in ("md", "tex", "csv")]
    for file in [*earlier, bibliography.FILE]:
        (folder / file).unlink(missing_ok=True)
    if layouts:
        (folder / bibliography.FILE).write_text(bibliography.bibtex(names), "utf-8")
    for layout in layouts:
        notes = [*reproduction.headline(layout.lines), *LEGEND, *_notes(layout.lines)]
        in_brackets = [*notes, *_cited(layout.lines, names)]
        in_tex = [bibliography.with_cites(note, names) for note in notes]
        (folder / f"{layout.name}.md").write_text(
            paper_tables.markdown(suite, layout, in_brackets, footer), "utf-8"
        )
        (folder / f"{layout.name}.tex").write_text(paper_tables.tex(suite, layout, in_tex, footer), "utf-8")
        (folder / f"{layout.name}.csv").write_text(paper_tables.csv(suite, layout, footer), "utf-8")
    return text(suite, data)


def markdown(
    suite: str,
    data: pd.DataFrame,
    names: Mapping[str, str],
    layouts: Sequence[paper_tables.Layout],
    shown: Sequence[Picture],
    footer: Sequence[str],
) -> str:
    """The headline, a table for each set of conditions, how to read it, reruns by others and sources."""
    parts = [f"# {suite}: {TITLE}", "\n".join(f"- {line}" for line in reproduction.headline(data))]
    for heading, lines in _compared(data).groupby("table", sort=False):
        judged, others = lines[lines["why"] == ""], lines[lines["why"] != ""]
        parts += [f"## {heading}", *([_table(judged)] if len(judged) else [])]
        if len(others):
            summary = f"<summary>{count(len(others), 'line')} not comparable, for orientation only</summary>"
            parts += [f"<details>{summary}", _table(others), "</details>"]
    notes = [*_notes(data), *_cited(_compared(data), names)]
    if len(_compared(data)):
        parts += ["## How to read it", "\n".join(f"- {escape(line)}" for line in [*LEGEND, *notes])]
    if layouts:
        parts.append("As papers print it: " + ", ".join(f"[{x.title}]({x.name}.md)" for x in layouts) + ".")
    parts += in_markdown(shown) or ["No figure: no published number can be compared with ours."]
    return "\n\n".join([*parts, "---", *footer]) + "\n"


def _table(lines: pd.DataFrame) -> str:
    """Ours beside published; the gain of choosing the best epoch where there is any."""
    gains = bool(lines["inflation"].abs().max() > 0)
    header = ["pair", "method", "ours", *["best - last"] * gains, "published", "rule", "runs", "Δ", "verdict"]
    rows = []
    for entry in lines.to_dict("records"):
        delta = _number(entry["delta"], "+.2f") if entry["verdict"] else paper_tables.NONE
        gain = [_number(entry["inflation"], "+.2f")] * gains
        number = f"{entry['printed']} [{entry['keys']}]"
        own = [entry["pair"], entry["label"], paper_tables.ours(entry), *gain]
        rows.append([*own, number, entry["rule"], _number(entry["runs"], "g"), delta, _verdict(entry)])
    return pipes(header, rows)


def text(suite: str, data: pd.DataFrame, width: int = 80) -> str:
    """Render the comparison as text: for each pair and method ours, published, difference and verdict."""
    parts = [f"{suite}: {TITLE}", "\n".join(fold(line, width) for line in reproduction.headline(data))]
    for heading, lines in _compared(data).groupby("table", sort=False):
        head = fold(str(heading), width)
        parts.append(head + "\n" + "-" * max(map(len, head.split("\n"))))
        parts += [
            fold(str(pair), width) + "\n" + "\n".join(map(_line, own.to_dict("records")))
            for pair, own in lines.groupby("pair")
        ]
    weak = [line for line in _notes(data) if line.startswith("†")]
    return "\n\n".join([*parts, *(fold(line, width) for line in weak)]) + "\n"


def _line(entry: dict) -> str:
    """At most 80 columns; a long label has lines of its own."""
    *above, label = wrap(entry["label"], 18)
    delta = _number(entry["delta"], "+.2f") if entry["verdict"] else paper_tables.NONE
    verdict = "not tested" if entry["why"] else _verdict(entry).replace(": no verdict", "")
    line = f"  {label:<18}  {paper_tables.ours(entry):>18}  {entry['printed']:>11}  {delta:>6}  {verdict}"
    return "\n".join([*(f"  {part}" for part in above), line.rstrip()])


def _compared(data: pd.DataFrame) -> pd.DataFrame:
    """The lines with ours and a published number, or where ours was tried."""
    tried = (data["n"] + data["diverged"] > 0) | (data["skipped"] > 0)
    return data[tried & (data["printed"] != "") & (data["metric"] == "top1") & (data["method"] != "teacher")]


def _verdict(entry: dict) -> str:
    if entry["why"]:
        return "not comparable"
    return (entry["verdict"] or paper_tables.NONE) + (" †" if entry["note"] else "")


def _notes(data: pd.DataFrame) -> list[str]:
    """Teachers below the expected accuracy, remarks on published numbers, and reruns that users reported."""
    lines = [WEAK.format(note) for note in sorted(set(data["note"]) - {""})]
    noted = _compared(data)[_compared(data)["remarks"] != ""].groupby("remarks")["printed"]
    lines += [f"{', '.join(values.unique())} {remark}." for remark, values in noted]
    again = data[(data["reruns"] != "") & (data["metric"] == "top1")].drop_duplicates(["pair", "label"])
    reruns = [f"{row['label']} on {row['pair']}: {row['reruns']}" for row in again.to_dict("records")]
    return [
        *lines,
        *(["Reruns reported by users, not published: " + "; ".join(reruns) + "."] if reruns else []),
    ]


def _sources(data: pd.DataFrame) -> dict[str, str]:
    """key -> full name of all sources in the frame."""
    return published.sources(published.load(), {key for texts in data["keys"] for key in texts.split()})


def _cited(data: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    keys = {key for texts in data["keys"] for key in texts.split()}
    return [f"[{key}] {name}" for key, name in names.items() if key in keys]


def _number(value: float, form: str) -> str:
    return paper_tables.NONE if pd.isna(value) else format(value, form)
