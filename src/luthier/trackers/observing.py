"""A run shown in one tracker, at no risk to the run; implements `Observer`.

Each tracker works in a thread of its own, and training hands over what is to be shown: a network
that hangs holds up nothing. The first error switches the tracker off, with one notice; what the
run itself writes (metrics.jsonl) has nothing to do with it.

A run that goes on from a checkpoint makes some steps once more. A tracker that can take back what
it showed of them does; another one is shown only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from luthier.contracts.notice import Notice
from luthier.core.secrets import redact
from luthier.trackers.tracker import FINISH_S, Opened, TrackedRun, Tracker
from luthier.trackers.worker import MAX_WAITING, Worker

if TYPE_CHECKING:
    from luthier.contracts.training import Progress, SampleRecord, StepRecord
    from luthier.trackers.histograms import Histogram

EVAL_PREFIX = "eval_"


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of a tracker; always from the thread that trains.

    Attributes:
        say: Told where the run can be seen.
        tell: Told, once, why the tracker was switched off.
        remember: Given what opens the run again.
    """

    say: Callable[[str], None]
    tell: Callable[[Notice], None]
    remember: Callable[[str, Opened], None]


class TrackerObserver:
    """Shows a run in one tracker, and never raises, never waits before the end."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        run: TrackedRun,
        listeners: Listeners,
        shown: Mapping[str, int] | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """Remember what to show; nothing is opened yet.

        Args:
            name: What messages call the tracker.
            tracker: Shows it.
            run: What is shown.
            listeners: Who hears of it.
            shown: The last step that the tracker was shown, by kind of record (`train`, `eval`,
                `sample`), where the run was there before.
            max_waiting: Records that may wait for the tracker.
        """
        self._name = name
        self._tracker = tracker
        self._run = run
        self._listeners = listeners
        self._shown = dict(shown or {})
        self._max_waiting = max_waiting
        self._worker: Worker | None = None
        self._opened: Opened | None = None
        self._is_announced = False
        self._is_off = False
        self._is_closed = False

    def on_start(self, progress: Progress) -> None:
        """Open the run; or take back what follows a checkpoint that the run went back to."""
        run = replace(self._run, step=progress.step)
        if self._tracker.rewinds:
            self._shown.clear()
        if self._worker is None:
            self._worker = Worker(f"tracker {self._name}", self._max_waiting)
            self._do(lambda: self._open(run))
        elif self._tracker.rewinds:
            self._do(lambda: self._tracker.close(failed=False))
            self._do(lambda: self._open(run))

    def on_step(self, record: StepRecord) -> None:
        """Hear how the tracker is doing."""
        self._look()

    def on_log(self, record: StepRecord) -> None:
        """Show the training metrics."""
        self._log("train", record)

    def on_evaluation(self, record: StepRecord) -> None:
        """Show the validation metrics."""
        self._log("eval", record)

    def on_samples(self, record: SampleRecord) -> None:
        """Show what the model answers."""
        if self._is_new("sample", record.step):
            self._do(lambda: self._tracker.log_samples(record))

    def show_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Show the histograms of a step."""
        if self._is_new("histograms", step):
            self._do(lambda: self._tracker.log_histograms(step, histograms))

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """Checkpoints stay where they are."""

    def on_end(self, progress: Progress) -> None:
        """Let the tracker send what is left."""
        self._close(failed=False)

    def end(self) -> None:
        """Let the tracker end. A run that has not come to its end has failed."""
        self._close(failed=True)
        if self._worker is not None:
            self._worker.end()

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, but no longer than so many seconds."""
        if self._worker is None:
            return
        is_done = self._worker.wait(timeout_s)
        self._look()
        if not is_done and not self._is_off:
            self._switch_off("it had not taken all records when the run ended")

    def _log(self, kind: str, record: StepRecord) -> None:
        if self._is_new(kind, record.step):
            metrics = tracker_names(kind, record.metrics)
            self._do(lambda: self._tracker.log(record.step, metrics))

    def _is_new(self, kind: str, step: int) -> bool:
        if step <= self._shown.get(kind, -1):
            return False
        self._shown[kind] = step
        return True

    def _close(self, *, failed: bool) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._do(lambda: self._tracker.close(failed=failed))

    def _open(self, run: TrackedRun) -> None:
        self._opened = self._tracker.open(run)

    def _do(self, call: Callable[[], None]) -> None:
        self._look()
        if self._is_off or self._worker is None:
            return
        if not self._worker.put(call):
            self._switch_off(f"it is {self._max_waiting:,} records behind")

    def _look(self) -> None:
        if self._opened is not None and not self._is_announced:
            self._is_announced = True
            self._listeners.remember(self._name, self._opened)
            self._listeners.say(f"{self._name}: {redact(self._opened.place)}")
        error = None if self._worker is None else self._worker.error
        if error is not None and not self._is_off:
            self._switch_off(redact(f"{type(error).__name__}: {error}"))

    def _switch_off(self, reason: str) -> None:
        self._is_off = True
        reason = f"{' '.join(reason.split())}; training goes on, and metrics.jsonl is whole"
        self._listeners.tell(Notice("report_to", self._name, "none", reason))


def tracker_names(kind: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics under the names of the trackers: `train/loss`, `eval/loss`.

    Args:
        kind: `train` or `eval`.
        metrics: Named as in metrics.jsonl: those of luthier's evaluations begin with `eval_`.
    """
    prefix = EVAL_PREFIX if kind == "eval" else ""
    return {f"{kind}/{name.removeprefix(prefix)}": value for name, value in metrics.items()}


def finish_all(observers: Sequence[TrackerObserver], timeout_s: float = FINISH_S) -> None:
    """Wait until all trackers have what they were given, but no longer than so many seconds."""
    deadline = time.monotonic() + timeout_s
    for observer in observers:
        observer.end()
    for observer in observers:
        observer.wait(max(0.0, deadline - time.monotonic()))
