"""What a leaderboard can be about: the measures of a run, how they are written and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.report.tables import Table
from kdbench.results.statistics.power import SIZES


@dataclass(frozen=True)
class Metric:
    """One measure of the students.

    column: of results files. title: in headings. words: in a sentence, with the unit. unit: of a difference.
    digits: after the point. higher: whether a higher value is better. sizes: differences whose required number of
    runs the notes give, in ``unit``.
    """

    column: str
    title: str
    words: str
    unit: str = "points"
    digits: int = 2
    higher: bool = True
    sizes: Sequence[float] = SIZES

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: times this, higher is better."""
        return 1 if self.higher else -1

    @property
    def form(self) -> str:
        """The format of a value: '.2f'."""
        return f".{self.digits}f"

    @property
    def signed(self) -> str:
        """The format of a difference: '+.2f'."""
        return f"+{self.form}"


TOP1 = Metric("top1", "top-1", "top-1 in percent")
METRICS = (
    TOP1,
    Metric("top5", "top-5", "top-5 in percent"),
    Metric(
        "nll",
        "NLL",
        "negative log-likelihood in nats (lower is better)",
        "nats",
        3,
        False,
        (0.01, 0.02, 0.05),
    ),
    Metric("ece", "ECE", "expected calibration error in percent (lower is better)", higher=False),
    Metric("agree_teacher", "agreement", "agreement with the teacher's top-1 class in percent"),
)


def measured(table: Table) -> list[Metric]:
    """The metrics that any finished run of the table has; top-1 always."""
    return [metric for metric in METRICS if metric is TOP1 or table.finished[metric.column].notna().any()]
