"""trackio with its database in a temporary folder, read back through its own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trackio", reason="trackio is not installed (extra: trackio)")

# The package asks for its folder when it is imported: a process of its own has one of its own.
CODE = """
from pathlib import Path
from luthier.contracts.training import Sample, SampleRecord
from luthier.trackers.histograms import Histogram
from luthier.trackers.tracker import TrackedRun
from luthier.trackers.trackio import Trackio

tracker = Trackio()
opened = tracker.open(TrackedRun("violins", "first", Path("."), {"learning_rate": 0.1}))
tracker.log(1, {"train/loss": 2.5})
tracker.log_samples(SampleRecord(2, 0.5, (Sample("Say hi", "Hi", "stop"),), 0.1))
tracker.log_histograms(2, {"weights/a": Histogram([1, 3], [0.0, 1.0, 2.0], 4.0, 5.0)})
tracker.close(failed=False)
again = Trackio()
again.open(TrackedRun("violins", "first", Path("."), {}, 2, opened.id))
again.log(3, {"train/loss": 2.0})
again.close(failed=False)
"""


def python(folder: Path, *words: str) -> str:
    environment = {**os.environ, "TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(folder: Path, metric: str) -> dict[int, Any]:
    asked = ("--project", "violins", "--run", "first", "--metric", metric, "--json")
    found = json.loads(python(folder, "-m", "trackio.cli", "get", "metric", *asked))
    return {value["step"]: value["value"] for value in found["values"]}


@pytest.mark.slow
def test_a_run_that_is_stopped_and_goes_on(tmp_path: Path):
    python(tmp_path, "-c", CODE)
    assert values(tmp_path, "train/loss") == {1: 2.5, 3: 2.0}
    (row,) = values(tmp_path, "samples")[2]["_value"]
    assert row == {"step": 2, "prompt": "Say hi", "answer": "Hi", "finish_reason": "stop"}
    assert values(tmp_path, "weights/a")[2]["values"] == [1, 3]
