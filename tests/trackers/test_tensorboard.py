"""What was written, as TensorBoard's own reader reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.training import SampleRecord
from luthier.trackers.histograms import Histogram
from luthier.trackers.tensorboard import TensorBoard
from luthier.trackers.tracker import TrackedRun

pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra: board)")


def read_back(folder: str | Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import (
        HISTOGRAMS,
        SCALARS,
        TENSORS,
        EventAccumulator,
    )

    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0, TENSORS: 0, HISTOGRAMS: 0})
    return found.Reload()


def scalars(found: Any, name: str) -> dict[int, float]:
    events = found.Scalars(name)
    steps = [event.step for event in events]
    assert len(set(steps)) == len(steps), "a step is shown twice"
    return {event.step: event.value for event in events}


def test_numbers_samples_histograms_and_settings(
    tracked_run: Callable[..., TrackedRun], samples: SampleRecord
):
    tracker = TensorBoard()
    place = tracker.open(tracked_run()).place
    tracker.log(0, {"eval/loss": 3.0})
    tracker.log(2, {"train/loss": 2.5, "train/learning_rate": 0.5})
    tracker.log_samples(samples)
    histogram = Histogram([1, 0, 3], [-1.0, 0.0, 1.0, 2.0], 3.5, 6.0)
    tracker.log_histograms(4, {"weights/a.b": histogram})
    tracker.close(failed=False)

    found = read_back(place)
    assert scalars(found, "eval/loss") == {0: 3.0}
    assert scalars(found, "train/loss") == {2: 2.5}
    (text,) = found.Tensors("samples/1/text_summary")
    assert text.step == 4
    written = text.tensor_proto.string_val[0].decode()
    assert "    Say\n    *hi*\n" in written
    assert "    Hi | there\n" in written
    (drawn,) = found.Histograms("weights/a.b")
    assert drawn.step == 4
    value = drawn.histogram_value
    assert (value.min, value.max, value.num, value.sum) == (-1.0, 2.0, 4.0, 3.5)
    assert list(value.bucket_limit) == [0.0, 1.0, 2.0]
    assert list(value.bucket) == [1.0, 0.0, 3.0]
    kept = found.SummaryMetadata("_hparams_/session_start_info")
    assert b"learning_rate" in kept.plugin_data.content
    assert b'["q", "v"]' in kept.plugin_data.content


def test_going_on_takes_back_the_steps_that_come_again(tracked_run: Callable[..., TrackedRun]):
    tracker = TensorBoard()
    place = tracker.open(tracked_run()).place
    for step in range(1, 6):
        tracker.log(step, {"train/loss": float(step)})
    tracker.close(failed=True)
    assert tracker.open(tracked_run(step=3, earlier_id="first")).place == place
    for step in range(4, 6):
        tracker.log(step, {"train/loss": 10.0 * step})
    tracker.close(failed=False)
    assert scalars(read_back(place), "train/loss") == {1: 1, 2: 2, 3: 3, 4: 40, 5: 50}
