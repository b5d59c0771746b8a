"""Measure how long luthier takes to answer before any training: whole processes, wall time.

    python benchmarks/startup.py [--runs 9]

Prints one line a command: the median over the runs and the slowest, after one run that is not
counted (it compiles and fills the disk cache). The project's own limits (issue 2): `luthier --help`
under 0.5 s, a typo in a settings file under 1 s.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from luthier.recipes.machine import cpu_name

LECTURE = Path(__file__).parents[1] / "configs" / "lora_qlora.yaml"
TYPO = ("learning_rate:", "lerning_rate:")


def main() -> None:
    """Measure each command and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    print(
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, {runs} runs\n"
    )
    print("| command | median | slowest |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="luthier-startup-") as scratch:
        typo = Path(scratch) / "typo.yaml"
        typo.write_text(LECTURE.read_text(encoding="utf-8").replace(*TYPO), encoding="utf-8")
        for name, words, code in (
            ("luthier --help", ["--help"], 0),
            ("luthier train FILE, a typo in it", ["train", str(typo)], 2),
            ("luthier config FILE", ["config", str(LECTURE)], 0),
        ):
            seconds = measure(words, code, runs)
            median, slowest = statistics.median(seconds), max(seconds)
            print(f"| `{name}` | {median:.2f} s | {slowest:.2f} s |", flush=True)


def measure(words: list[str], code: int, runs: int) -> list[float]:
    """Run a command line a number of times and return the seconds of each run but the first.

    Raises:
        RuntimeError: It ended with another exit code than the expected one: no measurement then.
    """
    command = [sys.executable, "-m", "luthier", *words]
    seconds: list[float] = []
    for _ in range(runs + 1):
        started_s = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started_s)
        if done.returncode != code:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return seconds[1:]


if __name__ == "__main__":
    main()
