"""What a tracker is to luthier: a place that takes numbers, samples and histograms of a run.

One file a tracker stands beside this one. None of them guards itself: `TrackerObserver` does that
for all, and calls them from a thread of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord
    from luthier.trackers.histograms import Histogram

FINISH_S = 30.0
"""Seconds that the end of a run waits for all trackers together."""

REQUEST_S = 10
"""Seconds after which an unanswered request to a tracker's server has failed."""

SAMPLE_COLUMNS = ("step", "prompt", "answer", "finish_reason")
"""Columns of the trackers' tables of samples."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run, as a tracker opens it.

    Attributes:
        project: The project that it stands in.
        name: Its name there.
        folder: Where files may be put.
        settings: Its settings by leaf name, secrets hidden.
        step: The step that it goes on after; 0 for a new one.
        earlier_id: What `open` returned when the run was opened before; None for a new one.
    """

    project: str
    name: str
    folder: Path
    settings: Mapping[str, Any]
    step: int = 0
    earlier_id: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open run.

    Attributes:
        id: What opens it again.
        place: Where people see it: an address, or a folder.
    """

    id: str
    place: str


class Tracker(Protocol):
    """Shows runs. Any method may take its time, and may raise anything."""

    @property
    def rewinds(self) -> bool:
        """Whether opening a run at a step takes back what was shown of later steps."""
        ...

    def open(self, run: TrackedRun) -> Opened:
        """Begin a run, or go on with it."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show numbers, named as `train/loss`, at an optimiser step."""
        ...

    def log_samples(self, record: SampleRecord) -> None:
        """Show what the model answers to the run's fixed prompts."""
        ...

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Show histograms, named as `weights/PARAMETER` and `gradients/PARAMETER`."""
        ...

    def close(self, *, failed: bool) -> None:
        """End the run and send what is left; `failed`: it broke off with an error."""
        ...


def sample_rows(record: SampleRecord) -> list[list[Any]]:
    """Return samples as rows of `SAMPLE_COLUMNS`."""
    return [
        [record.step, sample.prompt, sample.answer, sample.finish_reason]
        for sample in record.samples
    ]
