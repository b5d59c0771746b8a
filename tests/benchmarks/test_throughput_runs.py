"""A child is measured and its failure told; luthier's own record is read as the peers' is."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from throughput_runs import (
    HERE,
    BenchmarkError,
    Inputs,
    Run,
    alone,
    contestants,
    environment,
    is_done,
    luthier_settings,
    peer_case,
    read_luthier,
    run_process,
    versions,
)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds; a condition that never does fails the test."""
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs("model", tmp_path, "cpu", 8, 512, 1, 16, 60.0)


def test_peak_memory_is_the_childs_own(inputs: Inputs, tmp_path: Path) -> None:
    log = tmp_path / "log"
    # On Linux no child's peak is below what its parent held, which under pytest is much.
    least = run_process([sys.executable, "-c", "pass"], log, inputs)
    held_bytes = least.peak_bytes + 200_000_000
    code = f"held = b'x' * {held_bytes}"
    usage = run_process([sys.executable, "-c", code], log, inputs)
    assert held_bytes < usage.peak_bytes < held_bytes + 100_000_000
    assert usage.wall_s > 0


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the system doesn't tell its load")
def test_other_work_is_noticed(inputs: Inputs, tmp_path: Path) -> None:
    busy = "import time\nuntil = time.process_time() + 3\nwhile time.process_time() < until: pass"
    other = subprocess.Popen([sys.executable, "-c", busy])
    sleep = "import time; time.sleep(1)"
    usage = run_process([sys.executable, "-c", sleep], tmp_path / "log", inputs)
    other.kill()
    other.wait()
    assert usage.others is not None
    assert 0 < usage.others <= 1.1


def test_disturbed_run_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert not is_done(path)
    for others, expected in ((None, True), (0.01, True), (0.5, False)):
        path.write_text(json.dumps({"others": others}))
        assert is_done(path) is expected


def test_failure_ends_with_what_was_said(inputs: Inputs, tmp_path: Path) -> None:
    code = "print('no such model'); raise SystemExit(3)"
    with pytest.raises(BenchmarkError, match=r"exit status 3 after \d+ s: no such model"):
        run_process([sys.executable, "-c", code], tmp_path / "log", inputs)


def test_endless_run_is_ended(inputs: Inputs, tmp_path: Path) -> None:
    code = "import time; time.sleep(60)"
    with pytest.raises(BenchmarkError, match="exit status -9"):
        run_process([sys.executable, "-c", code], tmp_path / "log", replace(inputs, limit_s=0.2))


def test_an_ended_benchmark_leaves_no_child(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    child = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import pathlib, signal, sys\n"
        "from throughput_runs import Inputs, run_process\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        f"run_process([sys.executable, '-c', {child!r}], folder / 'log',\n"
        "            Inputs('model', folder, 'cpu', 8, 512, 1, 16, 60.0))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=HERE)
    wait_for(lambda: marker.is_file() and marker.read_text() != "")
    process.terminate()
    assert process.wait() == 143
    pid = int(marker.read_text())
    wait_for(lambda: not psutil.pid_exists(pid))


def test_cpu_hides_the_gpus() -> None:
    assert environment("cpu")["CUDA_VISIBLE_DEVICES"] == ""
    assert environment("cuda")["HF_HUB_OFFLINE"] == "1"


def test_lock_keeps_others_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with alone(lock), lock.open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with alone(None):
        pass


def test_all_are_given_the_same(inputs: Inputs) -> None:
    by_name = {c.name: c for c in contestants(inputs)}
    ours = luthier_settings(Run(1, by_name["luthier-packed"], "lora", "bf16", 5), inputs)
    theirs = peer_case(Run(1, by_name["trl-tuned"], "lora", "bf16", 5), inputs, inputs.folder)
    for name in ("learning_rate", "seed", "lora_rank"):
        assert ours[name] == theirs[name]
    assert ours["cutoff_len"] == theirs["trl"]["max_length"] == 512
    assert ours["per_device_train_batch_size"] == theirs["trl"]["per_device_train_batch_size"]
    lecture = peer_case(Run(1, by_name["lecture"], "full", "fp32", 5), inputs, inputs.folder)
    assert lecture["trl"] is None
    assert lecture["learning_rate"] < theirs["learning_rate"]


def test_luthiers_steps_last_from_end_to_end(tmp_path: Path) -> None:
    logs = [
        {"kind": kind, "elapsed_seconds": ended, "seconds_per_step": took, "memory_bytes": 7.0,
         "tokens_per_second": 100 / took, "supervised_tokens_per_second": 75 / took}
        for kind, ended, took in (("train", 9.0, 2.0), ("eval", 10.0, 1.0), ("train", 12.5, 3.0))
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(log) + "\n" for log in logs))
    for gpus, expected in (([], 0), ([{"name": "x"}], 7)):
        (tmp_path / "manifest.json").write_text(json.dumps({"machine": {"gpus": gpus}}))
        found = read_luthier(tmp_path)
        assert found["gpu_bytes"] == expected
    assert found["steps"] == [
        {"seconds": 2.0, "tokens": 100, "supervised": 75},
        {"seconds": 3.5, "tokens": 100, "supervised": 75},
    ]


def test_versions_of_an_environment() -> None:
    found = versions(sys.executable)
    assert "torch" in found
    assert "luthier" in found
