"""Write the report of one suite: files to files, the same bytes for the same rows."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.report import figures, reproducibility, reproduction, tuning
from kdbench.report.figures import Drawing, files
from kdbench.report.figures.sheet import SCREEN, Sheet, styled
from kdbench.report.leaderboard import board
from kdbench.report.load import Results, merge, places, rows_of, suites
from kdbench.report.order import main_first
from kdbench.report.page import html, index
from kdbench.report.provenance import provenance
from kdbench.report.render import latex_leaderboard, leaderboard, paper_figures
from kdbench.report.render import reproduction as beside_published
from kdbench.report.tables import tables
from kdbench.results.choice import ALL, Choice
from kdbench.suites import Suite, name_of
from kdbench.utils.text import Printed

BASELINE = "kd"


def write_report(
    suite: str | Path | Suite,
    results: Results = "results",
    out: str | Path = "reports",
    baseline: str = BASELINE,
    formats: str | Sequence[str] | None = None,
    only: Choice | None = None,
    style: str = SCREEN.name,
) -> str:
    """Write reports/<suite>/ from the rows of the suite and their curves; return the main table as text.

    suite: a name, a .toml file, or a `kdbench.Suite`. results: a folder of results or a .csv file, or several, which
    are merged. Written: leaderboard.md, .csv and .tex, leaderboard-appendix.tex (spreads, comparisons with the baseline
    and other tables), index.html, reproducibility.csv where cells were trained more than once, what `figures` draws
    (differences are against the method ``baseline``) and what `render.reproduction` writes; above them, for all suites,
    what `page.index` writes. only: the rows to report, which the report then says; None: all. style: "paper" also
    writes figures for a paper, and a figures.tex that shows them, into the folder ``paper`` there. formats: of the
    style's figures, some of png, svg and pdf (the pages show the first two); None: the style's own.
    Raises KdbenchError when there are no rows, none of a baseline that was asked for, a file is damaged, a style or a
    format is unknown or ``out`` cannot be written.
    """
    suite = name_of(suite)
    sheet, only = styled(style), only or ALL
    if formats is not None:
        sheet = replace(sheet, formats=files.checked(formats))
    merged = merge(suite, results, only)
    if merged.attempts.empty and len(all_rows := merge(suite, results).attempts):
        raise only.refusal(all_rows)
    if merged.attempts.empty:
        where = ", ".join(str(rows_of(suite, place)) for place in places(results))
        near = difflib.get_close_matches(suite, set(suites(results)) - {suite}, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"type `kdbench run --suite {suite}` first"
        raise KdbenchError(f"there are no rows of suite {suite!r} in {where}; {hint}")
    ordered = main_first(tables(merged.records), suite)
    boards = [board(table, baseline) for table in ordered]
    compared = sorted({label for each in boards for label in each.labels})
    if baseline not in [BASELINE, *compared]:
        raise KdbenchError(
            f"suite {suite!r} has no run of {baseline!r}; --baseline takes one of {', '.join(compared)}, or --suite "
            "leaves this suite out"
        )
    footer = [*([f"Only rows with {only}."] if str(only) else []), *provenance(suite, ordered)]
    runs = reproducibility.frame(merged.attempts, merged.records)
    details = [
        p.with_name(f"{p.stem}.details") if p.is_file() else p / f"{suite}.details" for p in places(results)
    ]
    folder = Path(out) / suite
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leaderboard.csv").write_text(leaderboard.csv(suite, boards, footer), "utf-8")
        (folder / "leaderboard.tex").write_text(latex_leaderboard.leaderboard(suite, boards, footer), "utf-8")
        (folder / "leaderboard-appendix.tex").write_text(
            latex_leaderboard.appendix(suite, boards, footer), "utf-8"
        )
        reproducibility.save(runs, folder / "reproducibility.csv")
        beside = reproduction.frame(suite, ordered, merged.curves)
        trials = tuning.trials_of(places(results), suite)
        drawings = [
            *figures.of_boards(boards, merged.curves, details, baseline, footer),
            beside_published.drawing(beside),
            *tuning.drawings(trials),
        ]
        files.clear(folder)
        on_screen = sheet if sheet.name == SCREEN.name else SCREEN
        shown = [picture for picture, _ in figures.write(drawings, on_screen, footer, folder)]
        figures.write_data(drawings, folder)
        if sheet is not on_screen:
            _write_paper(suite, drawings, sheet, footer, folder / sheet.name)
        published = [picture for picture in shown if picture.name == beside_published.FIGURE]
        reproduced = beside_published.write(folder, suite, beside, footer, published)
        tuning.write(folder, suite, trials, merged.records, footer)
        words = leaderboard.markdown(suite, boards, footer, runs, shown)
        (folder / "leaderboard.md").write_text(words, "utf-8")
        page = html.page(suite, boards, footer, merged.attempts, merged.curves, details, runs, shown)
        (folder / "index.html").write_text(page, "utf-8")
        index.write(Path(out))
    except OSError as error:
        raise KdbenchError(
            f"cannot write {folder} ({error.strerror or error}); choose another --out"
        ) from error
    said = [reproducibility.sentence(runs)] if len(runs) else []
    return Printed(leaderboard.text(suite, boards, [*said, *footer]) + "\n" + reproduced)


def _write_paper(
    suite: str, drawings: Sequence[Drawing], sheet: Sheet, footer: Sequence[str], folder: Path
) -> None:
    """The figures for a paper, and figures.tex that shows them."""
    folder.mkdir(exist_ok=True)
    files.clear(folder)
    drawn = figures.write(drawings, sheet, footer, folder)
    (folder / "figures.tex").write_text(paper_figures.tex(suite, drawn, sheet), "utf-8")


def leaderboard_text(suite: str, attempts: pd.DataFrame, baseline: str = BASELINE) -> str:
    """All tables of these rows as text for a terminal, at most 80 columns wide; nothing is written."""
    ordered = main_first(tables(attempts), suite)
    boards = [board(table, baseline) for table in ordered]
    return Printed(leaderboard.text(suite, boards, provenance(suite, ordered), whole=True))
