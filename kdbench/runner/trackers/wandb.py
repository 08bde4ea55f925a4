"""Weights & Biases: its own account, server and WANDB_MODE; files below results/track/wandb."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdbench.errors import KdbenchError
from kdbench.runner.trackers import base
from kdbench.utils.status import Status

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell


class Wandb(base.Tracker):
    """Runs of the project kdbench (WANDB_PROJECT), grouped by suite."""

    name = "wandb"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        try:
            import wandb
        except ImportError:
            raise base.missing(self.name, "wandb") from None
        self._wandb = wandb
        self._settings = wandb.Settings(silent=True)
        self._mode: Any = os.environ.get("WANDB_MODE", "online")
        if self._mode == "online" and not self._logged_in():
            raise KdbenchError(
                "--track wandb needs an account: type `wandb login`, or set WANDB_MODE=offline"
            )

    def _logged_in(self) -> bool:
        """Whether there is an account; in a terminal the user is asked for it, before anything is trained."""
        try:
            return bool(self._wandb.login())
        except self._wandb.errors.Error:
            return False

    def start(self, cell: Cell, handle: str) -> tuple[Any, str]:
        """A run beside those of the other cells."""
        handle = handle or f"{cell.id}-{base.timestamp()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", base.PROJECT),
            group=cell.suite,
            name=base.title(cell),
            id=handle,
            resume="allow",
            mode=self._mode,
            reinit="create_new",
            config=base.facts(cell),
            dir=self.folder,
            settings=self._settings,
        )
        return run, handle

    def log(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        """A step of the run's history."""
        run.log(dict(values), step=epoch)

    def close(self, run: Any, cell: Cell, status: Status, result: Mapping[str, float]) -> None:
        """The row as the run's summary."""
        run.summary.update({**result, "status": str(status)})
        run.finish(exit_code=0 if status in (Status.OK, Status.SKIPPED, Status.INTERRUPTED) else 1)
