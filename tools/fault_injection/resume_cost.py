"""What going on in the middle of a large data set costs: whole processes, to their first step."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fault_injection.inputs import write_rows
from fault_injection.zygote import environment
from luthier.checkpoints.listing import inspect_checkpoints

ROWS_PER_STEP = 512

STEPS_BEFORE = 200
"""Steps that are taken before the stop: over 100,000 rows, which a replay would have to read."""


@dataclass(frozen=True, slots=True)
class ResumeCost:
    """Seconds from the start of a process to the end of its first step (medians).

    Attributes:
        step: The step that the resumed run goes on after.
        num_rows: Of the data set.
    """

    step: int
    num_rows: int
    fresh_s: float
    resumed_s: float


def measure_resume(folder: Path, model: Path, num_rows: int, repeats: int = 3) -> ResumeCost:
    """Train over a part of a data set, stop, and time starts from there and from nothing.

    Args:
        folder: Empty; gets rows, prepared rows and runs.
        model: A tiny model.
        num_rows: Rows of the data set.
        repeats: Starts of each kind.

    Raises:
        RuntimeError: A run ended before the step that was waited for.
    """
    write_rows(folder / "rows.jsonl", num_rows, answer="Red.")
    settings = {
        "model_name_or_path": str(model),
        "train_file": "rows.jsonl",
        "prepared_dir": "prepared",
        "output_dir": "out",
        "lora_rank": 4,
        "per_device_train_batch_size": ROWS_PER_STEP,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "logging_steps": 1,
        "bf16": False,
    }
    (folder / "run.yaml").write_text(json.dumps(settings), encoding="utf-8")
    _train_until(folder, min(STEPS_BEFORE, num_rows // ROWS_PER_STEP // 2), signal.SIGTERM)
    done = inspect_checkpoints(folder / "out")[-1].step
    resumed = ["--resume_from_checkpoint"]
    fresh = ["--output_dir", "fresh", "--overwrite_output_dir"]
    fresh_s: list[float] = []
    resumed_s: list[float] = []
    for _ in range(repeats):
        fresh_s.append(_train_until(folder, 1, signal.SIGKILL, fresh))
        resumed_s.append(_train_until(folder, done + 1, signal.SIGKILL, resumed))
    return ResumeCost(done, num_rows, statistics.median(fresh_s), statistics.median(resumed_s))


def _train_until(
    folder: Path, step: int, number: signal.Signals, flags: Sequence[str] = ()
) -> float:
    """Start a run, send it a signal once a step is done, and return the seconds until then."""
    command = [sys.executable, "-m", "luthier", "train", "run.yaml", *flags]
    log = folder / "last.log"
    with log.open("w", encoding="utf-8") as errors:
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment() | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        for done in _steps(process.stdout):
            if done >= step:
                seconds = time.perf_counter() - started_s
                os.kill(process.pid, number)
                process.communicate()
                return seconds
        process.wait()
    raise RuntimeError(f"the run ended before step {step}:\n{log.read_text(encoding='utf-8')}")


def _steps(lines: Iterator[str]) -> Iterator[int]:
    for line in lines:
        words = line.split()
        if words[:1] == ["step"] and "loss" in words:
            yield int(words[1])
