"""All that watches a run: the screen, the run's files, the trackers, and the user's callbacks.

Which run of a tracker this is stands in trackers.json of the run's folder, with the last steps that
it was shown before this start, so that a run that goes on after a stop goes on there too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.contracts.notice import Notice
from luthier.contracts.training import Observer, Progress, Resumable, StopRequest
from luthier.core.files import write_json
from luthier.core.secrets import redact_json
from luthier.engine.metrics_file import MetricsFile, read_metrics
from luthier.recipes.callback_file import NamedCallback
from luthier.recipes.callbacks import Callbacks
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import METRICS, settings_of
from luthier.recipes.samples import SAMPLES, SamplesFile
from luthier.recipes.screen import Screen
from luthier.trackers.histograms import Histogram, HistogramTap
from luthier.trackers.observing import Listeners, TrackerObserver, finish_all
from luthier.trackers.registry import TRACKERS
from luthier.trackers.tracker import Opened, TrackedRun

if TYPE_CHECKING:
    import torch

    from luthier.engine.guards import Guards
    from luthier.recipes.job import Job

TRACKER_IDS = "trackers.json"
"""The file of a run's folder that says under which id each tracker knows the run."""

LOGS = "logs"
"""The folder of a run for what trackers keep on the disk, where the settings name no other."""


@dataclass(frozen=True, slots=True)
class Watching:
    """Those who watch a run.

    Attributes:
        observers: Told what happens, in this order.
        callbacks: Those of the user; None where there are none.
        tap: Takes histograms; None where none are wanted.
    """

    observers: tuple[Observer, ...]
    callbacks: Callbacks | None = None
    tap: HistogramTap | None = None

    @property
    def parts(self) -> dict[str, Resumable]:
        """What of them goes into checkpoints, by name."""
        return {} if self.callbacks is None else {"callbacks": self.callbacks}

    def attach(
        self, job: Job, optimizer: torch.optim.Optimizer, guards: Guards, progress: Progress
    ) -> None:
        """Let them look at what is trained. Called anew when the run goes back to a checkpoint."""
        if self.callbacks is not None:
            self.callbacks.attach(job, optimizer, guards)
        if self.tap is not None:
            self.tap.watch(job.model, optimizer, progress)

    def detach(self) -> None:
        """Let go of what was trained, so that its memory is free for another model."""
        if self.callbacks is not None:
            self.callbacks.detach()

    def stop_request(self, stop: StopRequest) -> StopRequest:
        """Return a request that also stops where a callback has failed."""
        return stop if self.callbacks is None else self.callbacks.stop_request(stop)

    def raise_error(self) -> None:
        """Raise what a callback has raised, now that a checkpoint is written.

        Raises:
            RunError: With the file and the line.
        """
        if self.callbacks is not None:
            self.callbacks.raise_error()


@contextmanager
def watched(
    config: RunConfig,
    folder: Path,
    callbacks: Sequence[NamedCallback],
    screen: Screen,
    report: Observer,
    tell: Callable[[Notice], None],
) -> Generator[Watching]:
    """Yield those who watch a run, and let the trackers finish when the block is left.

    Args:
        config: The settings.
        folder: The run's.
        callbacks: The user's.
        screen: Shows the run.
        report: Draws it from the files.
        tell: Told that a tracker was switched off.
    """
    trackers = build_trackers(config, folder, screen.say, tell)
    files = (MetricsFile(folder / METRICS), SamplesFile(folder / SAMPLES))
    observers: tuple[Observer, ...] = (screen, *files, report, *trackers)
    with_callbacks = None
    if callbacks:
        settings = flat_settings(config)
        with_callbacks = Callbacks(callbacks, observers, folder, settings, screen.say)
        observers = (with_callbacks,)

    def show(step: int, histograms: Mapping[str, Histogram]) -> None:
        for tracker in trackers:
            tracker.show_histograms(step, histograms)

    every = config.tracking.log_histograms
    tap = None if every is None else HistogramTap(every, show)
    try:
        yield Watching(observers, with_callbacks, tap)
    finally:
        finish_all(trackers)


def build_trackers(
    config: RunConfig,
    folder: Path,
    say: Callable[[str], None],
    tell: Callable[[Notice], None],
) -> tuple[TrackerObserver, ...]:
    """Return an observer for each of the run's trackers; none of them is opened yet.

    Args:
        config: The settings.
        folder: The run's.
        say: Told where the run can be seen.
        tell: Told that a tracker was switched off.
    """
    settings = config.tracking
    name = settings.run_name or folder.resolve().name
    logs = folder / LOGS
    if settings.logging_dir is not None:
        logs = Path(settings.logging_dir).expanduser() / name
    known = read_tracker_ids(folder)
    # To one that joins a run which goes on, all that comes is new.
    shown = {
        tracker: _last_steps(folder / METRICS, entry["shown"]) for tracker, entry in known.items()
    }

    def remember(tracker: str, opened: Opened) -> None:
        known[tracker] = asdict(opened) | {"shown": shown.get(tracker, {})}
        write_json(folder / TRACKER_IDS, redact_json(known))

    def observer(tracker: str) -> TrackerObserver:
        earlier = known.get(tracker)
        run = TrackedRun(
            project=settings.project,
            name=name,
            folder=logs,
            settings=redact_json(flat_settings(config)),
            earlier_id=None if earlier is None else earlier["id"],
        )
        return TrackerObserver(
            tracker,
            TRACKERS[tracker].build(),
            run,
            Listeners(say, tell, remember),
            shown.get(tracker),
        )

    return tuple(observer(tracker) for tracker in settings.trackers)


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings of a run by leaf name."""
    sections = settings_of(config).values()
    return {name: value for section in sections for name, value in section.items()}


def read_tracker_ids(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of a run by tracker; nothing for a new run.

    Returns:
        `id`, `place` where it is seen, and `shown`: the last step by kind of record that the
        tracker had been shown when it was opened last.
    """
    path = folder / TRACKER_IDS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _last_steps(metrics: Path, before: Mapping[str, int]) -> dict[str, int]:
    """Return the last step of each kind of record, where some were cut off since `before`."""
    last = dict(before)
    for record in read_metrics(metrics):
        last[record["kind"]] = max(record["step"], last.get(record["kind"], -1))
    return last
