"""SwanLab, online or (SWANLAB_MODE=offline) as files that `swanlab sync` sends later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import Opened, TrackedRun

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord
    from luthier.trackers.histograms import Histogram

FOLDER = "swanlab"


class SwanLab:
    """Shows runs through the package swanlab; implements `Tracker`."""

    rewinds = False

    def open(self, run: TrackedRun) -> Opened:
        """Begin a run, or go on with that of the same id.

        SwanLab would take over Ctrl-C in the main thread; it is never called there.
        """
        folder = run.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._swanlab: Any = import_module("swanlab")
        self._run = self._swanlab.init(
            project=run.project,
            name=run.name,
            id=run.earlier_id or secrets.token_hex(8),
            resume="allow",
            log_dir=str(folder),
            config=dict(run.settings),
            # Else it would ask for a key, and wait.
            settings=self._swanlab.Settings(interactive=False),
        )
        place = self._run.url if self._run.mode == "online" else str(self._run.dir)
        return Opened(self._run.id, place)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(metrics), step=step)

    def log_samples(self, record: SampleRecord) -> None:
        """Show the answers at each step, each under its prompt."""
        texts = [self._swanlab.Text(s.answer, caption=s.prompt) for s in record.samples]
        self.log(record.step, {"samples": texts})

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Draw nothing: SwanLab has no histograms, and the settings' rules say so."""

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        if failed:
            self._run.finish(state="crashed", error="the run broke off; see its own output")
        else:
            self._run.finish()
