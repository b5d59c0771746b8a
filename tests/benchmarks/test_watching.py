"""The benchmark of watching runs from end to end with a tiny model, and counts as it says."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import watching
from throughput_runs import BenchmarkError
from watching import Times, read_times, refuse_lost_trackers, run_all, table

SCRIPT = Path(watching.__file__)


def test_the_table_parts_what_watching_costs():
    times = {
        "off": [Times(90.0, 89.0, 0.0, 0.0), Times(110.0, 109.0, 0.0, 0.0)],
        "on": [Times(104.0, 100.0, 1.0, 0.5), Times(103.0, 99.0, 1.0, 0.5)],
    }
    lines = table(times, 50).splitlines()
    assert lines[2] == "| off | 1.980 | - | - | - | - |"
    assert lines[3] == "| on | 1.990 | +3.02 % | +1.01 % | +0.50 % | +1.51 % |"
    assert lines[-1] == "Seconds of each run: off 90.0, 110.0; on 104.0, 103.0"


def test_the_warm_up_is_not_counted(tmp_path: Path):
    (tmp_path / "clock.json").write_text("[1.0, 5.0, 7.0, 10.0]", encoding="utf-8")
    records = [
        {"kind": "eval", "step": 0, "eval_seconds": 50.0},
        {"kind": "sample", "step": 2, "seconds": 50.0},
        {"kind": "train", "step": 3, "seconds_per_step": 2.0},
        {"kind": "sample", "step": 3, "seconds": 0.5},
        {"kind": "eval", "step": 3, "eval_seconds": 1.0},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert read_times(tmp_path, warmup=2) == Times(
        total=5.0, steps=2.0, evaluations=1.0, samples=0.5
    )


def test_a_run_whose_tracker_was_lost_is_no_measurement(tmp_path: Path):
    notice = {"setting": "report_to", "asked": "wandb", "used": "none", "reason": "no route"}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"notices": [{**notice, "setting": "bf16"}]}), encoding="utf-8")
    refuse_lost_trackers(tmp_path)
    path.write_text(json.dumps({"notices": [notice]}), encoding="utf-8")
    with pytest.raises(BenchmarkError, match="wandb: no route"):
        refuse_lost_trackers(tmp_path)


@pytest.mark.parametrize("only", ["on", "off,of"])
def test_off_is_always_measured(only: str):
    with pytest.raises(BenchmarkError, match="--only takes off, and with it on or histograms"):
        run_all(argparse.Namespace(only=only))


def test_inputs_that_are_not_there(tmp_path: Path):
    options = argparse.Namespace(only="off", data=None, model=tmp_path / "none")
    with pytest.raises(BenchmarkError, match=r"there is no .*none"):
        run_all(options)


@pytest.mark.slow
def test_everything_runs_with_a_tiny_model():
    command = [sys.executable, str(SCRIPT), "--dry_run", "--only", "off,histograms"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| histograms |")]
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert len(cells) == 6
    assert all(cell.endswith(" %") for cell in cells[2:])
    assert float(cells[3].split()[0]) > 0, "it validated"
    assert float(cells[4].split()[0]) > 0, "it sampled"
