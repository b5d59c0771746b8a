"""SwanLab offline: what it keeps on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.contracts.training import SampleRecord
from luthier.trackers.swanlab import SwanLab
from luthier.trackers.tracker import TrackedRun

pytest.importorskip("swanlab", reason="swanlab is not installed (extra: swanlab)")


def kept(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_run_is_kept_on_the_disk(
    tracked_run: Callable[..., TrackedRun],
    samples: SampleRecord,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    tracker = SwanLab()
    opened = tracker.open(tracked_run())
    tracker.log(1, {"train/loss": 2.5})
    tracker.log_samples(samples)
    tracker.close(failed=True)
    again = SwanLab()
    later = again.open(tracked_run(step=4, earlier_id=opened.id))
    again.log(5, {"train/later": 2.0})
    again.close(failed=False)
    assert later.id == opened.id
    assert Path(opened.place).parent == tracked_run().folder / "swanlab"
    first, second = (kept(Path(found.place)) for found in (opened, later))
    assert b"train/loss" in first
    assert "你好".encode() in first
    assert b"train/later" in second
