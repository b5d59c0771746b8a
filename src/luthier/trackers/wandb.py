"""Weights & Biases, online or (WANDB_MODE=offline) as files that `wandb sync` sends later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import (
    FINISH_S,
    REQUEST_S,
    SAMPLE_COLUMNS,
    Opened,
    TrackedRun,
    sample_rows,
)

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord
    from luthier.trackers.histograms import Histogram

STEP = "train/global_step"
"""The x axis, called as transformers calls it. W&B's own counter counts calls, and only upwards."""


class WandB:
    """Shows runs through the package wandb; implements `Tracker`."""

    rewinds = False

    def open(self, run: TrackedRun) -> Opened:
        """Begin a run, or go on with that of the same id.

        Raises:
            RuntimeError: W&B is to be online, and has no key. By itself it would ask for one.
        """
        wandb: Any = import_module("wandb")
        settings = wandb.Settings(
            init_timeout=2 * REQUEST_S,
            finish_timeout=FINISH_S - 5,
            console="off",
            silent=True,
        )
        mode = wandb.setup(settings).settings.mode
        is_online = mode in ("online", "run", "shared")
        if is_online and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("it knows no API key: run `wandb login`, or set WANDB_MODE=offline")
        run.folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.earlier_id or secrets.token_hex(8),
            dir=str(run.folder),
            config=dict(run.settings),
            # Offline, W&B can't ask whether there is such a run, and says so if it is to.
            resume="allow" if is_online else None,
            settings=settings,
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP, step_sync=True)
        place = self._run.url if is_online else str(Path(self._run.dir).parent)
        return Opened(self._run.id, place or mode)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Tracker.log`."""
        self._run.log({**metrics, STEP: step})

    def log_samples(self, record: SampleRecord) -> None:
        """Show a table at each step; W&B puts them together."""
        table = self._wandb.Table(columns=list(SAMPLE_COLUMNS), data=sample_rows(record))
        self.log(record.step, {"samples": table})

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """See `Tracker.log_histograms`."""
        drawn = {
            name: self._wandb.Histogram(np_histogram=(found.counts, found.edges))
            for name, found in histograms.items()
        }
        self.log(step, drawn)

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=int(failed))
