from __future__ import annotations

import inspect

import pytest

from luthier.contracts.training import SampleRecord
from luthier.trackers.registry import TRACKERS
from luthier.trackers.tracker import SAMPLE_COLUMNS, Tracker, sample_rows

METHODS = ("open", "log", "log_samples", "log_histograms", "close")


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_has_what_the_protocol_says(name: str):
    tracker = TRACKERS[name].build()
    for method in METHODS:
        expected = list(inspect.signature(getattr(Tracker, method)).parameters)[1:]
        assert list(inspect.signature(getattr(tracker, method)).parameters) == expected
    assert tracker.rewinds is (name == "tensorboard")


def test_samples_as_rows(samples: SampleRecord):
    rows = sample_rows(samples)
    assert [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in rows] == [
        {"step": 4, "prompt": "Say\n*hi*", "answer": "Hi | there", "finish_reason": "stop"},
        {"step": 4, "prompt": "说", "answer": "你好", "finish_reason": "length"},
    ]
