"""Results -> tables and figures: files to files, the same bytes for the same rows. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.report import beside, figures, html, latex, leaderboard, pictures, repeats, style
from kdbench.report.board import board
from kdbench.report.frames import tables
from kdbench.report.merge import Results, merge, places, suites
from kdbench.report.notes import provenance

__all__ = ["leaderboard_text", "report", "suites"]

BASELINE = "kd"


def report(
    suite: str, results: Results = "results", out: str | Path = "reports", baseline: str = BASELINE
) -> str:
    """Write reports/<suite>/ from the rows of the suite and their curves; return the leaderboard as text.

    results: a folder of results or a .csv file, or several, which are merged. Written: leaderboard.md, .csv and
    .tex, index.html, reproducibility.csv where cells were trained more than once, what `figures` draws (differences are
    against the method ``baseline``) and what `beside` writes. Raises KdbenchError when there are no rows, none of a
    baseline that was asked for, a file is damaged or ``out`` cannot be written.
    """
    merged = merge(suite, results)
    if merged.attempts.empty:
        where = ", ".join(map(str, places(results)))
        raise KdbenchError(
            f"no results for suite {suite!r} in {where}; type `kdbench run --suite {suite}` first"
        )
    found = tables(merged.records)
    boards = [board(table, baseline) for table in found]
    compared = sorted({label for each in boards for label in each.labels})
    if baseline not in [BASELINE, *compared]:
        raise KdbenchError(
            f"suite {suite!r} has no run of {baseline!r}; --baseline takes one of {', '.join(compared)}, or --suite "
            "leaves this suite out"
        )
    footer = provenance(suite, found)
    runs = repeats.frame(merged.attempts, merged.records)
    kept = [
        p.with_name(f"{p.stem}.details") if p.is_file() else p / f"{suite}.details" for p in places(results)
    ]
    folder = Path(out) / suite
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leaderboard.csv").write_text(leaderboard.csv(suite, boards, footer), "utf-8")
        (folder / "leaderboard.tex").write_text(latex.leaderboard(suite, boards, footer), "utf-8")
        repeats.save(runs, folder / "reproducibility.csv")
        pictures.clear(folder)
        captions = figures.write(boards, merged.curves, kept, baseline, footer, folder)
        with matplotlib.rc_context(style.RC):
            reproduced = beside.write(folder, suite, found, footer, merged.curves)
        shown = pictures.pictures(folder, captions | {"published": "Ours against published accuracies"})
        words = leaderboard.markdown(suite, boards, footer, runs, {each.name: each.text for each in shown})
        (folder / "leaderboard.md").write_text(words, "utf-8")
        page = html.page(suite, boards, footer, merged.attempts, merged.curves, runs, shown)
        (folder / "index.html").write_text(page, "utf-8")
    except OSError as error:
        raise KdbenchError(
            f"cannot write {folder} ({error.strerror or error}); choose another --out"
        ) from error
    said = [repeats.sentence(runs)] if len(runs) else []
    return leaderboard.text(suite, boards, [*said, *footer]) + "\n" + reproduced


def leaderboard_text(suite: str, attempts: pd.DataFrame, baseline: str = BASELINE) -> str:
    """The leaderboard of these rows as text for a terminal, at most 80 columns wide; nothing is written."""
    found = tables(attempts)
    return leaderboard.text(suite, [board(table, baseline) for table in found], provenance(suite, found))
