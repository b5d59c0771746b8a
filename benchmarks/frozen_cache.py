"""Measure `freeze` training with and without the cache of the frozen layers.

    python benchmarks/frozen_cache.py [--layers 2 8] [--rows 48] [--epochs 3] [--rounds 1]
        [--packing padding_free] [--model DIR] [--data FILE] [-- SETTING FLAGS]

For each number of trained layers `luthier train` runs as a process of its own, without and with the
cache in turn. It prints a Markdown table: seconds of the steps of the first epoch and of each later
one, seconds of the first and of each later evaluation, the largest resident memory of the process,
and by which share a logged loss differs at most from that of the run without the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from luthier.recipes.machine import cpu_name

ROOT = Path(__file__).parents[1]
MODEL = Path.home() / ".cache/luthier/models/SmolLM2-135M-Instruct"
DATA = ROOT.parent / "shared/data/alpaca_en_demo.json"
VAL_ROWS = 8
COLUMNS = (
    *("trained layers", "cache", "first epoch, s", "each later, s"),
    *("first evaluation, s", "each later, s", "memory", "loss differs by"),
)


@dataclass(frozen=True)
class Run:
    """What one training took; `losses` are those of each step, then those of the evaluations."""

    epochs_s: list[float]
    evaluations_s: list[float]
    losses: list[float]
    memory_bytes: int


def main() -> None:
    """Print the table."""
    own, flags = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--packing", default="padding_free")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args(own)
    rows: list[Any] = json.loads(given.data.read_text(encoding="utf-8"))
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{given.rows} rows, batches of 4, packing {given.packing}, validation {VAL_ROWS} rows\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {"train": rows[: given.rows], "val": rows[given.rows : given.rows + VAL_ROWS]}
        for part, chosen in parts.items():
            (folder / f"{part}.json").write_text(json.dumps(chosen), encoding="utf-8")
        flags += ["--model_name_or_path", str(given.model), "--packing", given.packing]
        flags += ["--num_train_epochs", str(given.epochs)]
        for layers in given.layers:
            for _ in range(given.rounds):
                plain = train(folder, layers, False, flags)
                print(row(layers, "no", plain, plain), flush=True)
                print(row(layers, "yes", train(folder, layers, True, flags), plain), flush=True)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def train(folder: Path, layers: int, cached: bool, flags: list[str]) -> Run:
    """Run `luthier train` as a user would and read the outcome from the run's folder."""
    out = folder / "out"
    settings = {
        "finetuning_type": "freeze",
        "freeze_trainable_layers": layers,
        "freeze_cache": str(cached).lower(),
        "train_file": folder / "train.json",
        "val_file": folder / "val.json",
        "prepared_dir": folder / "prepared",
        "output_dir": out,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
    }
    command = [sys.executable, "-m", "luthier", "train", "--overwrite_output_dir"]
    command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    # stdout is the table's; what the run says of itself goes to stderr.
    process = subprocess.Popen([*command, *flags], stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit("the run failed")
    text = (out / "metrics.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    evaluations = [record for record in records if record["kind"] == "eval"]
    seconds: dict[int, float] = defaultdict(float)
    for step in steps:
        # The last step of an epoch ends on a whole number.
        seconds[-int(-step["epoch"] // 1)] += step["seconds_per_step"]
    losses = [step["loss"] for step in steps] + [found["eval_loss"] for found in evaluations]
    times = [found["eval_seconds"] for found in evaluations]
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(list(seconds.values()), times, losses, used.ru_maxrss * unit)


def row(layers: int, cache: str, run: Run, plain: Run) -> str:
    """Return one row of the table."""
    pairs = zip(run.losses, plain.losses, strict=True)
    differs = max(abs(found - expected) / expected for found, expected in pairs)
    cells = [str(layers), cache]
    for times in (run.epochs_s, run.evaluations_s):
        cells += [f"{times[0]:.1f}", f"{mean(times[1:]):.1f}" if times[1:] else "-"]
    cells += [f"{run.memory_bytes / 2**30:.2f} GiB", f"{differs:.1e}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
