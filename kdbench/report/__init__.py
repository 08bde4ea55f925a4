"""Results -> tables and figures: files to files, the same bytes for the same rows. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

from kdbench import store
from kdbench.errors import KdbenchError
from kdbench.report import curves, forest, leaderboard, style
from kdbench.report.board import board
from kdbench.report.frames import tables
from kdbench.report.notes import provenance


def report(
    suite: str, results: str | Path = "results", out: str | Path = "reports", baseline: str = "kd"
) -> str:
    """Write reports/<suite>/ from results/<suite>.csv and its curves; return the leaderboard as text.

    leaderboard.md and .csv, forest.png/.svg/.csv (paired differences against the method ``baseline``) and
    curves.png/.svg/.csv. Raises KdbenchError when there are no rows, a file is damaged or ``out`` cannot be
    written.
    """
    attempts = store.read(Path(results) / f"{suite}.csv")
    if attempts.empty:
        raise KdbenchError(
            f"no results for suite {suite!r} in {results}; type `kdbench run --suite {suite}` first"
        )
    found = tables(attempts)
    boards = [board(table, baseline) for table in found]
    footer = provenance(suite, found)
    deltas = forest.frame(boards)
    epochs = curves.frame(found, store.read(Path(results) / f"{suite}.curves.csv", store.CURVE_COLUMNS))
    folder = Path(out) / suite
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leaderboard.md").write_text(leaderboard.markdown(suite, boards, footer), "utf-8")
        (folder / "leaderboard.csv").write_text(leaderboard.csv(suite, boards, footer), "utf-8")
        with matplotlib.rc_context(style.RC):
            style.save(forest.draw(deltas, baseline, footer), deltas, folder / "forest")
            style.save(curves.draw(epochs, footer), epochs, folder / "curves")
    except OSError as error:
        raise KdbenchError(
            f"cannot write {folder} ({error.strerror or error}); choose another --out"
        ) from error
    return leaderboard.text(suite, boards, footer)


def leaderboard_text(suite: str, attempts: pd.DataFrame, baseline: str = "kd") -> str:
    """The leaderboard of these rows as text for a terminal, at most 80 columns wide; nothing is written."""
    found = tables(attempts)
    return leaderboard.text(suite, [board(table, baseline) for table in found], provenance(suite, found))
