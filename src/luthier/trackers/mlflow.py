"""MLflow, wherever MLFLOW_TRACKING_URI says: a server, a database or a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import (
    REQUEST_S,
    SAMPLE_COLUMNS,
    Opened,
    TrackedRun,
    sample_rows,
)

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord
    from luthier.trackers.histograms import Histogram

SAMPLES = "samples.json"
"""Table of all samples of a run, among its artifacts."""

LONGEST_VALUE = 500
"""Characters of a parameter's value that every store takes."""

MOST_PARAMETERS = 100
"""Parameters that one request may bring."""

_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Variables of MLflow's that are set where the user has not set them."""


class MLflow:
    """Shows runs through MLflow's client; implements `Tracker`."""

    rewinds = False

    def open(self, run: TrackedRun) -> Opened:
        """Begin a run in the experiment `project`, or go on with that of the same id."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        self._entities: Any = import_module("mlflow.entities")
        self._client: Any = import_module("mlflow").MlflowClient()
        if run.earlier_id is not None:
            self._id = run.earlier_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            experiment = self._client.get_experiment_by_name(run.project)
            number = (
                self._client.create_experiment(run.project)
                if experiment is None
                else experiment.experiment_id
            )
            self._id = self._client.create_run(number, run_name=run.name).info.run_id
            # Once written, a parameter can't change.
            for part in _parts(list(run.settings.items())):
                values = [
                    self._entities.Param(name, str(value)[:LONGEST_VALUE]) for name, value in part
                ]
                self._client.log_batch(self._id, params=values)
        return Opened(self._id, f"{self._client.tracking_uri}, run {self._id}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        now_ms = int(time.time() * 1000)
        found = [
            self._entities.Metric(name, value, now_ms, step) for name, value in metrics.items()
        ]
        self._client.log_batch(self._id, metrics=found)

    def log_samples(self, record: SampleRecord) -> None:
        """Add rows to the run's table of samples."""
        columns = zip(*sample_rows(record), strict=True)
        table = {name: list(c) for name, c in zip(SAMPLE_COLUMNS, columns, strict=True)}
        self._client.log_table(self._id, table, SAMPLES)

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Draw nothing: MLflow has no histograms, and the settings' rules say so."""

    def close(self, *, failed: bool) -> None:
        """Say that the run is over."""
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


def _parts(items: Sequence[tuple[str, Any]]) -> Iterator[Sequence[tuple[str, Any]]]:
    for first in range(0, len(items), MOST_PARAMETERS):
        yield items[first : first + MOST_PARAMETERS]
