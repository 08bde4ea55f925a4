"""The files of a suite under a results folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """rows, curves and details are results; the rest is work in progress, needed on this machine alone."""

    results: Path
    suite: str

    @property
    def rows(self) -> Path:
        return self.results / f"{self.suite}.csv"

    @property
    def curves(self) -> Path:
        return self.results / f"{self.suite}.curves.csv"

    @property
    def details(self) -> Path:
        return self.results / f"{self.suite}.details"

    @property
    def work(self) -> Path:
        return self.results / ".work"

    @property
    def locks(self) -> Path:
        return self.work / "locks"

    @property
    def students(self) -> Path:
        return self.work / "students"
