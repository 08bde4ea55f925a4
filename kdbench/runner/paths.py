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
        """The rows, a CSV file."""
        return self.results / f"{self.suite}.csv"

    @property
    def curves(self) -> Path:
        """The training curves, a CSV file."""
        return self.results / f"{self.suite}.curves.csv"

    @property
    def details(self) -> Path:
        """The folder of predictions' details."""
        return self.results / f"{self.suite}.details"

    @property
    def work(self) -> Path:
        """The folder of checkpoints, teachers and locks."""
        return self.results / ".work"

    @property
    def locks(self) -> Path:
        """The folder of locks."""
        return self.work / "locks"

    @property
    def running(self) -> Path:
        """The folder of what running processes say of themselves."""
        return self.work / "running"

    @property
    def slurm(self) -> Path:
        """The folder of jobs that Slurm runs."""
        return self.work / "slurm"

    @property
    def students(self) -> Path:
        """The folder of trained students' weights."""
        return self.work / "students"
