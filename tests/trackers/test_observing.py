"""A tracker that works, fails or hangs: what it is shown, and what the run hears of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

import pytest

from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, SampleRecord, StepRecord
from luthier.trackers.histograms import Histogram
from luthier.trackers.observing import Listeners, TrackerObserver, finish_all, tracker_names
from luthier.trackers.tracker import Opened, TrackedRun

HISTOGRAM = Histogram([1], [0.0, 1.0], 0.5, 0.25)


class Memory:
    """A tracker that remembers; raises in the method that it is told to. Implements `Tracker`."""

    def __init__(self, *, rewinds: bool = False, fails_in: str = "") -> None:
        self.rewinds = rewinds
        self.seen: list[tuple[str, Any]] = []
        self._fails_in = fails_in

    def _see(self, method: str, what: Any) -> None:
        if method == self._fails_in:
            raise ConnectionError("no\nroute for the token sk-proj-Abcdefgh1234567890abcd")
        self.seen.append((method, what))

    def open(self, run: TrackedRun) -> Opened:
        self._see("open", run.step)
        return Opened("id-1", "https://me:secret@tracker.test/run")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._see("log", (step, dict(metrics)))

    def log_samples(self, record: SampleRecord) -> None:
        self._see("samples", record.step)

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        self._see("histograms", (step, list(histograms)))

    def close(self, *, failed: bool) -> None:
        self._see("close", failed)


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.notices: list[Notice] = []
        self.remembered: list[tuple[str, Opened]] = []

    def listeners(self) -> Listeners:
        return Listeners(
            self.said.append, self.notices.append, lambda *found: self.remembered.append(found)
        )


Watch = Callable[..., TrackerObserver]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watch(heard: Heard, tracked_run: Callable[..., TrackedRun]) -> Watch:
    """Put a tracker behind its observer."""

    def build(tracker: Any, **options: Any) -> TrackerObserver:
        return TrackerObserver("memory", tracker, tracked_run(), heard.listeners(), **options)

    return build


def record(step: int, **metrics: float) -> StepRecord:
    return StepRecord(step, step / 2, metrics)


def test_a_run_from_start_to_end(watch: Watch, heard: Heard, samples: SampleRecord):
    tracker = Memory()
    observer = watch(tracker)
    observer.on_start(Progress())
    observer.on_evaluation(record(0, eval_loss=3.0))
    observer.on_step(record(1, loss=2.5))
    observer.on_log(record(1, loss=2.0, learning_rate=0.1))
    observer.show_histograms(2, {"weights/a": HISTOGRAM})
    observer.on_samples(samples)
    observer.on_checkpoint(4, "there", 0.1)
    observer.on_end(Progress(step=4))
    finish_all([observer])
    assert tracker.seen == [
        ("open", 0),
        ("log", (0, {"eval/loss": 3.0})),
        ("log", (1, {"train/loss": 2.0, "train/learning_rate": 0.1})),
        ("histograms", (2, ["weights/a"])),
        ("samples", 4),
        ("close", False),
    ]
    assert heard.notices == []
    assert heard.said == ["memory: https://***@tracker.test/run"]
    assert [name for name, _ in heard.remembered] == ["memory"]


def test_a_run_that_breaks_off_has_failed(watch: Watch):
    tracker = Memory()
    observer = watch(tracker)
    observer.on_start(Progress())
    finish_all([observer])
    assert tracker.seen[-1] == ("close", True)


def test_one_that_never_started_needs_no_end(watch: Watch, heard: Heard):
    tracker = Memory()
    finish_all([watch(tracker)])
    assert (tracker.seen, heard.said, heard.notices) == ([], [], [])


@pytest.mark.parametrize("method", ["open", "log", "samples", "histograms", "close"])
def test_an_error_switches_it_off_with_one_notice(
    watch: Watch, heard: Heard, samples: SampleRecord, method: str
):
    tracker = Memory(fails_in=method)
    observer = watch(tracker)
    observer.on_start(Progress())
    for step in range(1, 5):
        observer.on_step(record(step))
        observer.on_log(record(step, loss=1.0))
    observer.show_histograms(5, {"weights/a": HISTOGRAM})
    observer.on_samples(samples)
    observer.on_end(Progress(step=5))
    finish_all([observer])
    observer.on_log(record(6, loss=1.0))
    (notice,) = heard.notices
    assert str(notice) == (
        "report_to: memory -> none (ConnectionError: no route for the token ***; training goes on, "
        "and metrics.jsonl is whole)"
    )


def test_one_that_hangs_holds_nothing_up(watch: Watch, heard: Heard):
    go_on = Event()

    class Hanging(Memory):
        def open(self, run: TrackedRun) -> Opened:
            go_on.wait()
            return super().open(run)

    tracker = Hanging()
    observer = watch(tracker, max_waiting=3)
    observer.on_start(Progress())
    for step in range(1, 10):
        observer.on_log(record(step, loss=1.0))
    finish_all([observer], timeout_s=0.01)
    (notice,) = heard.notices
    assert "it is 3 records behind; training goes on" in str(notice)
    go_on.set()


def test_one_that_is_too_slow_at_the_end_is_left_to_itself(watch: Watch, heard: Heard):
    go_on = Event()

    class Slow(Memory):
        def close(self, *, failed: bool) -> None:
            go_on.wait()

    observer = watch(Slow())
    observer.on_start(Progress())
    observer.on_end(Progress())
    finish_all([observer], timeout_s=0.01)
    assert ["it had not taken all records when the run ended" in str(n) for n in heard.notices] == [
        True
    ]
    go_on.set()


def test_one_that_hangs_takes_no_time_from_another(watch: Watch, heard: Heard):
    go_on = Event()

    class Slow(Memory):
        def close(self, *, failed: bool) -> None:
            go_on.wait()

    tracker = Memory()
    observers = [watch(Slow()), watch(tracker)]
    for observer in observers:
        observer.on_start(Progress())
    finish_all(observers, timeout_s=0.3)
    assert tracker.seen == [("open", 0), ("close", True)]
    assert len(heard.notices) == 1
    go_on.set()


def test_what_was_shown_before_is_not_shown_again(watch: Watch, samples: SampleRecord):
    tracker = Memory()
    observer = watch(tracker, shown={"train": 2, "eval": 1, "sample": 4})
    observer.on_start(Progress(step=1))
    for step in (2, 3):
        observer.on_log(record(step, loss=1.0))
        observer.on_evaluation(record(step, eval_loss=2.0))
    observer.on_samples(samples)
    observer.on_start(Progress(step=2))  # The run goes back to a checkpoint.
    observer.on_log(record(3, loss=1.0))
    observer.on_log(record(4, loss=1.0))
    finish_all([observer])
    steps = [(what[0], *what[1]) for method, what in tracker.seen if method == "log"]
    assert steps == [(2, "eval/loss"), (3, "train/loss"), (3, "eval/loss"), (4, "train/loss")]


def test_one_that_rewinds_is_shown_it_again(watch: Watch):
    tracker = Memory(rewinds=True)
    observer = watch(tracker, shown={"train": 9})
    observer.on_start(Progress(step=1))
    observer.on_log(record(2, loss=1.0))
    observer.on_start(Progress(step=1))
    observer.on_log(record(2, loss=1.5))
    observer.on_end(Progress(step=2))
    finish_all([observer])
    methods = [method for method, _ in tracker.seen]
    assert methods == ["open", "log", "close", "open", "log", "close"]
    assert [what for method, what in tracker.seen if method == "open"] == [1, 1]


def test_names():
    metrics = {"eval_loss": 1.0, "eval_rewards/margins": 2.0, "distinct": 3.0}
    assert tracker_names("eval", metrics) == {
        "eval/loss": 1.0,
        "eval/rewards/margins": 2.0,
        "eval/distinct": 3.0,
    }
    assert tracker_names("train", {"loss": 1.0, "rewards/margins": 2.0}) == {
        "train/loss": 1.0,
        "train/rewards/margins": 2.0,
    }
