"""What a run came to: its rows, curves and leaderboard, and what is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from kdbench.plan.cells import Cell
from kdbench.results import store
from kdbench.runner.paths import Paths
from kdbench.utils.status import Status
from kdbench.utils.text import Printed


@dataclass(frozen=True, repr=False, eq=False)
class Outcome:
    """The result of `run`.

    suite: its name. cells: all that were selected. rows: one per cell that was tried, with the columns of the results
    file. elsewhere: cells that another process trains. signal: the number of the signal that stopped it, or None.
    """

    suite: str
    cells: Sequence[Cell]
    rows: pd.DataFrame
    paths: Paths
    elsewhere: int = 0
    signal: int | None = None
    out_of_time: bool = False

    @property
    def curves(self) -> pd.DataFrame:
        """Loss, its terms and accuracies of ``rows``: cell_id, run_id, epoch (from 1), term, value."""
        curves = store.read(self.paths.curves, store.CURVE_COLUMNS)
        return curves.merge(self.rows[["cell_id", "run_id"]]) if len(curves) else curves

    def leaderboard(self, baseline: str = "kd") -> str:
        """The tables of ``rows`` as text, differences against the method ``baseline``; '' where there is no row."""
        from kdbench.report.write import leaderboard_text

        return Printed() if self.rows.empty else leaderboard_text(self.suite, self._with(baseline), baseline)

    def _with(self, baseline: str) -> pd.DataFrame:
        """The rows, and those that the results hold of the baseline under the same conditions where it was not run.

        Where no row has a teacher, the baseline's may be any.
        """
        if (self.rows["method"] == baseline).any():
            return self.rows
        records = store.records(store.read(self.paths.rows))
        taught = self.rows["teacher_id"].notna()
        shared = ["split_id", "recipe_id", "precision", "student", "seed"]
        mine = self.rows
        if taught.any():
            shared, mine = [*shared, "teacher_id"], self.rows[taught]
        own = records[(records["method"] == baseline) & (records["default"].astype(str) == "True")]
        fitting = own[pd.MultiIndex.from_frame(own[shared]).isin(pd.MultiIndex.from_frame(mine[shared]))]
        return pd.concat([self.rows, fitting]) if len(fitting) else self.rows

    @property
    def complete(self) -> bool:
        """Every cell is done or being trained by another process."""
        return self._done + self.elsewhere >= len(self.cells)

    @property
    def _done(self) -> int:
        return int(self.rows["status"].isin([Status.OK, Status.SKIPPED]).sum())

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some cells failed or are left, 128 + signal when interrupted."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.complete else 3

    @property
    def notes(self) -> list[str]:
        """What the user should know beside the numbers."""
        notes = []
        if self.elsewhere:
            notes.append(f"{self.elsewhere} cells are being trained by another process; see `kdbench status`")
        if (self.out_of_time and not self.complete) or self.signal is not None:
            notes.append("stopped before the end, state saved: type the same command to go on")
        return notes

    def __repr__(self) -> str:
        return f"<{self.suite}: {self._done} of {len(self.cells)} cells done>"

    def _repr_html_(self) -> str:
        """The leaderboard in a notebook."""
        return Printed("\n".join([repr(self), *self.notes, "", self.leaderboard()]))._repr_html_()
