"""Hold the estimate of `luthier inspect` against real runs of the same settings.

    python benchmarks/estimate.py CONFIG [--SETTING VALUE ...]

Trains a few steps on padded rows and on both kinds of packed rows (or on those that `--packing`
names), each in a process of its own.
Prints predicted and measured memory, by parts, and the share of the machine's matrix rate that the
steps reached (`recipes/estimate.py` keeps that share as EFFICIENCY). Memory is predicted for the
rows that were trained on. Run it on an idle machine.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from luthier.cli.display import TrainScreen
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command
from luthier.recipes.machine import measure_matrix_rates
from luthier.recipes.quiet import quiet_libraries

NUM_STEPS = 4
PACKINGS = ("false", "padding_free", "true")
MIB = 2**20


class _Go:
    requested = False
    has_work = False

    def take_checkpoint_request(self) -> bool:
        return False


def run(flags: list[str]) -> dict[str, Any]:
    """Estimate and train one run; return what was predicted and what was measured."""
    from luthier.batches.packing import build_order
    from luthier.dataset.prepared import row_lengths
    from luthier.engine.fitting import PeakMemory
    from luthier.engine.metrics_file import read_metrics
    from luthier.recipes.estimate import flops_per_token
    from luthier.recipes.inspection import inspect_run
    from luthier.recipes.memory_estimate import Computing, estimate_memory, num_positions
    from luthier.recipes.packed import settle_packing
    from luthier.recipes.run_folder import METRICS
    from luthier.recipes.train import run_training

    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        flags = [*flags, "--output_dir", f"{folder}/run", "--eval_strategy", "no"]
        flags += ["--max_steps", str(NUM_STEPS), "--logging_steps", "1", "--save_strategy", "no"]
        config, _ = settle_packing(resolve_command(read_flags(flags)).config)
        with TrainScreen(Console(stderr=True)) as screen:
            found = inspect_run(config, screen, 0)
            with PeakMemory() as memory:
                run_training(config, sys.argv, screen, _Go())
        records = read_metrics(Path(folder) / "run" / METRICS)
    seconds = [float(r["seconds_per_step"]) for r in records if r["kind"] == "train"]
    lengths = row_lengths(found.data.prepared.train)
    order = build_order(lengths, config.batches, config.run.seed, config.tokens.cutoff_len)
    batches = [[int(lengths[i]) for i in rows] for rows in order.batches(0, 0)]
    batches = batches[: NUM_STEPS * config.batches.gradient_accumulation_steps]
    sizes = [num_positions(config, rows) for rows in batches]
    per_step = len(sizes) // NUM_STEPS
    value_bytes = {"bf16": 2, "fp16": 2, "fp32": 4}[found.precision]
    worst = batches[sizes.index(max(sizes))]
    computing = Computing(value_bytes=value_bytes, device_type="cpu", available_bytes=0)
    recomputes = found.estimate.recomputes
    expected = estimate_memory(config, found.shape, worst, computing, recompute=recomputes)
    # The first step also sets the libraries up.
    flops = flops_per_token(found.shape, recomputes) * sum(sizes[per_step:])
    return {
        "expected": asdict(expected),
        "measured": memory.peak_bytes,
        "seconds": sum(seconds[1:]),
        "flops_per_second": flops / sum(seconds[1:]),
        "precision": found.precision,
        "positions": max(sizes),
    }


def main() -> None:
    """Run all three and print the table."""
    rates = measure_matrix_rates()
    print(f"matrix rates, GFLOP/s: {rates}")
    print("| packing | positions | expected, MiB: parts | all | measured | share of the rate |")
    print("|---|---|---|---|---|---|")
    asked = "--packing" in sys.argv
    for packing in sys.argv[sys.argv.index("--packing") + 1 :][:1] if asked else PACKINGS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(run, ([*sys.argv[1:], *([] if asked else ["--packing", packing])],))
        parts = ", ".join(f"{n} {v / MIB:,.0f}" for n, v in found["expected"].items())
        total = sum(found["expected"].values()) / MIB
        share = found["flops_per_second"] / 1e9 / rates[found["precision"]]
        print(
            f"| {packing} | {found['positions']:,} | {parts} | {total:,.0f} "
            f"| {found['measured'] / MIB:,.0f} | {share:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
