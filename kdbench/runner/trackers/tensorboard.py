"""TensorBoard: event files below results/track/tensorboard."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdbench.runner.trackers import base
from kdbench.utils.status import Status

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell


class TensorBoard(base.Tracker):
    """A folder of event files per run, <suite>/<method>_<pair>_<seed>/<start>."""

    name = "tensorboard"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if importlib.util.find_spec("tensorboard") is None:
            raise base.missing(self.name, "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter

    def start(self, cell: Cell, handle: str) -> tuple[Any, str]:
        """A writer of event files."""
        place = handle or "/".join(
            [cell.suite, re.sub(r"[^\w.=+-]+", "_", base.title(cell)), base.timestamp()]
        )
        return self._writer(self.folder / place), place

    def log(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        """A scalar per value."""
        for name, value in values.items():
            run.add_scalar(name, value, epoch)
        run.flush()

    def close(self, run: Any, cell: Cell, status: Status, result: Mapping[str, float]) -> None:
        """The row as hyperparameters and their metrics."""
        if status != Status.INTERRUPTED:
            metrics = {f"result/{name}": value for name, value in result.items()}
            run.add_hparams({**base.facts(cell), "status": str(status)}, metrics, run_name=".")
        run.close()
