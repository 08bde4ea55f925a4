"""MLflow: the server of MLFLOW_TRACKING_URI, else the database results/track/mlflow/mlflow.db."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdbench.errors import KdbenchError, first_line
from kdbench.runner.trackers import base
from kdbench.utils.status import Status

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell

ENDS = {Status.OK: "FINISHED", Status.SKIPPED: "FINISHED", Status.INTERRUPTED: "KILLED"}  # others: FAILED


class MLflow(base.Tracker):
    """Runs of the experiment 'kdbench <suite>'."""

    name = "mlflow"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        try:
            import mlflow
        except ImportError:
            raise base.missing(self.name, "mlflow") from None
        self._mlflow = mlflow
        self.folder.mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{self.folder.absolute() / 'mlflow.db'}"
        place = os.environ.get("MLFLOW_TRACKING_URI") or own
        try:
            self._client = mlflow.MlflowClient(place)
        except Exception as error:  # of MLflow, of SQLAlchemy, ...
            raise KdbenchError(f"--track mlflow cannot open {place}: {first_line(error)}") from error

    def start(self, cell: Cell, handle: str) -> tuple[Any, str]:
        """A run, whose number is its handle."""
        if handle:
            self._client.set_terminated(handle, "RUNNING")
            return handle, handle
        name = f"{base.PROJECT} {cell.suite}"
        known = self._client.get_experiment_by_name(name)
        number = known.experiment_id if known else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=base.title(cell)).info.run_id
        parameters = [self._mlflow.entities.Param(key, str(value)) for key, value in base.facts(cell).items()]
        self._client.log_batch(run, params=parameters)
        return run, run

    def log(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        """A metric per value, with the epoch as its step."""
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(key, value, now, epoch) for key, value in values.items()]
        self._client.log_batch(run, metrics=metrics)

    def close(self, run: Any, cell: Cell, status: Status, result: Mapping[str, float]) -> None:
        """The row as metrics called result.<column>."""
        self._client.set_tag(run, "status", str(status))
        if status != Status.INTERRUPTED:
            self.log(run, cell.recipe.epochs, {f"result.{name}": value for name, value in result.items()})
        self._client.set_terminated(run, ENDS.get(status, "FAILED"))
