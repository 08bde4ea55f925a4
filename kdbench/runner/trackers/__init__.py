"""Experiment trackers, which hear what bars and logs hear: every cell is a run, logged while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kdbench.runner.trackers.base import Tracker
from kdbench.runner.trackers.mlflow import MLflow
from kdbench.runner.trackers.tensorboard import TensorBoard
from kdbench.runner.trackers.wandb import Wandb

KINDS: dict[str, type[Tracker]] = {kind.name: kind for kind in (TensorBoard, Wandb, MLflow)}


def open_trackers(names: Sequence[str], folder: Path, warn: Callable[[str], None]) -> list[Tracker]:
    """The trackers of these names, their files below ``folder``; ``warn`` gets what goes wrong later.

    Raises KdbenchError for one that is not installed or has no account.
    """
    return [KINDS[name](folder, warn) for name in names]
