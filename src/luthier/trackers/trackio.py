"""trackio: a local database that `trackio show` opens, or a Space (TRACKIO_SPACE_ID)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import SAMPLE_COLUMNS, Opened, TrackedRun, sample_rows

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord
    from luthier.trackers.histograms import Histogram


class Trackio:
    """Shows runs through the package trackio; implements `Tracker`."""

    rewinds = False

    def open(self, run: TrackedRun) -> Opened:
        """Begin a run, or go on with the newest one of the same name."""
        self._trackio: Any = import_module("trackio")
        self._run = self._trackio.init(
            project=run.project,
            name=run.earlier_id or run.name,
            config=dict(run.settings),
            resume="allow" if run.earlier_id else "never",
            embed=False,
        )
        return Opened(self._run.name, f"trackio show --project {run.project}")

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(metrics), step=step)

    def log_samples(self, record: SampleRecord) -> None:
        """Show a table at each step."""
        table = self._trackio.Table(columns=list(SAMPLE_COLUMNS), data=sample_rows(record))
        self.log(record.step, {"samples": table})

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """See `Tracker.log_histograms`."""
        drawn = {
            name: self._trackio.Histogram(np_histogram=(found.counts, found.edges))
            for name, found in histograms.items()
        }
        self.log(step, drawn)

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._run.finish()
