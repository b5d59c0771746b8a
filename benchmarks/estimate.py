"""Hold the estimate of `luthier inspect` against a real run of the same settings.

    python benchmarks/estimate.py CONFIG [--SETTING VALUE ...]

Prints predicted and measured seconds a step and memory, and the share of the machine's matrix rate
that the run reached (`recipes/estimate.py` keeps that share as EFFICIENCY).
Run it on an idle machine.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from luthier.cli.display import TrainScreen
from luthier.engine.metrics_file import read_metrics
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command
from luthier.recipes.estimate import EFFICIENCY
from luthier.recipes.inspection import inspect_run
from luthier.recipes.quiet import quiet_libraries
from luthier.recipes.run_folder import METRICS
from luthier.recipes.train import run_training


class _Go:
    requested = False


def main() -> None:
    """Estimate, run, compare."""
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        flags = [*sys.argv[1:], "--output_dir", f"{folder}/run", "--eval_on_start", "false"]
        config = resolve_command(read_flags(flags)).config
        with TrainScreen(Console(stderr=True)) as screen:
            found = inspect_run(config, screen, 0)
            run_training(config, sys.argv, screen, _Go())
        records = read_metrics(Path(folder) / "run" / METRICS)
    logs = [record for record in records if record["kind"] == "train"]
    steps = int(logs[-1]["step"])
    every = steps / len(logs)
    measured = sum(float(record["seconds_per_step"]) for record in logs) * every
    memory = max(float(record["memory_bytes"]) for record in logs)
    print("| | estimated | measured |")
    print("|---|---|---|")
    print(f"| seconds for {steps} steps | {found.estimate.seconds:.0f} | {measured:.0f} |")
    expected = found.estimate.memory_bytes / 2**30
    print(f"| memory, GiB | {expected:.2f} | {memory / 2**30:.2f} (resident) |")
    print(f"share of the matrix rate reached: {EFFICIENCY * found.estimate.seconds / measured:.2f}")


if __name__ == "__main__":
    main()
