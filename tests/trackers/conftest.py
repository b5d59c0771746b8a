"""What the tests of the trackers share: samples, and a run to open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.contracts.training import Sample, SampleRecord
from luthier.trackers.tracker import TrackedRun

OpenRun = Callable[..., TrackedRun]


@pytest.fixture
def samples() -> SampleRecord:
    return SampleRecord(
        step=4,
        epoch=0.5,
        samples=(Sample("Say\n*hi*", "Hi | there", "stop"), Sample("说", "你好", "length")),
        seconds=0.1,
    )


@pytest.fixture
def tracked_run(tmp_path: Path) -> OpenRun:
    """Describe a run in a temporary folder."""

    def describe(step: int = 0, earlier_id: str | None = None) -> TrackedRun:
        settings = {"learning_rate": 0.1, "lora_target": ["q", "v"], "bf16": False, "seed": None}
        return TrackedRun("violins", "first", tmp_path / "logs", settings, step, earlier_id)

    return describe
