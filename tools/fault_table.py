"""Make docs/reliability.md: run the fault suite in its long form, and tell what came of it.

    OMP_NUM_THREADS=1 python tools/fault_table.py [--quick] [--rows 1000000] [--junit FILE]

Every figure on the page comes out of this run. Where a test fails, no page is written. `--quick`
runs the short form, with 20,000 rows, and prints the page in place of writing it. `--junit` takes
the suite's results from a file of `pytest tests/faults --junitxml FILE`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fault_injection.harness import Zygote
from fault_injection.report import Fault, failed_tests, read_faults, table
from fault_injection.resume_cost import ResumeCost, measure_resume
from fault_injection.workshop import Workshop
from luthier.recipes.machine import cpu_name
from luthier.recipes.packages import installed_version

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
PACKAGES = ("luthier", "torch", "transformers", "peft", "datasets", "safetensors")
QUICK_ROWS = 20_000

_INTRODUCTION = """\
# Reliability: what was done to runs, and what came of it

`python tools/fault_table.py` made this page on {date}: {cpu}, {cores} cores, one thread,
{system}, Python {python}, {packages}.

Each fault was injected into a real process that trained a tiny Llama: more than one epoch, packed
rows, dropout, gradient accumulation over 4 micro-batches, a checkpoint every 2 steps, an
evaluation and a line of the log every 3, so that nothing falls together. Variants: LoRA, full and
freeze tuning, loader workers, checkpoints written in the background. *Survived* means: the run went
on as its user would have let it go on, and ended with the same weights, the same state of the
optimiser and of the random generators, the same metrics and the same events as a run that nobody
hurt, bit for bit; no unfinished file was left. Where the right end is an error (a second run in
the same folder, say), it means: the error was named, and nothing was lost.

"""

_RESUME = """
## Going on in the middle of {rows:,} rows

From the start of the process to the end of its first step, medians: a fresh start {fresh:.2f} s,
going on after step {step:,} {resumed:.2f} s, difference {difference:+.2f} s.

"""

_HOW = """\
## How it works

**Checkpoints** are written to a staging folder, flushed to the disk, sealed by a manifest with size
and sha256 of each file and a hash of itself, and only then renamed. A folder without a whole
manifest is no checkpoint. `latest` and `best` are found by step and by validation loss through the
manifests; the time of a file decides nothing. An older checkpoint is removed only after the new
one is sealed, under a name that nobody takes for a checkpoint; the best and the newest stay.
`luthier checkpoints RUN` reads every file and says which are good.

**Going on** restores state, and replays nothing: weights, optimiser, schedule, random generators,
the position in the epoch (a pure function of the seed gives the order), the part of a step that was
done with its gradients, the steps since the last line of the log, and what the guards have seen.
What a run's mathematics depend on is hashed into each checkpoint; going on with other settings is
refused with the difference, and `--allow_change NAME` finishes the epoch with the rows that it
has left.

**Signals.** SIGINT and SIGTERM end the run after the micro-batch under way, with a checkpoint of
that very point, exit code 75 and the command that goes on. A second one ends it at once. SIGUSR1
writes a checkpoint after the step under way. An evaluation is broken off, and made anew when the
run goes on.

**Numbers.** A step whose loss or gradient is no finite number is not taken; its rows stand in
`events.jsonl` with file and line. After more than `max_nonfinite_steps` in a row the run goes back
to its last good checkpoint and passes over the rows that led there, `max_rollbacks` times; then it
stops. A loss that jumps is reported, or gone back from with `on_loss_spike: rollback`.

**Disk.** Room is looked for before a checkpoint is written. Where there is too little, or a write
fails, staging is removed, and the message has the needed and the free bytes. With
`on_full_disk: pause` the run keeps the checkpoint in memory and waits for room.

**One folder, one run.** The system's own lock holds two processes apart, and lets go when a process
dies, however it dies.

## What is not promised

Equal bits need the same versions, the same hardware, and the same number of threads and processes;
`luthier reproduce RUN --check_only` says what differs. A disk that loses what it said was flushed
can lose the newest checkpoint; it will not verify, and the one before it is used.
"""


def main() -> int:
    """Run the suite, measure, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--junit", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="luthier-faults-") as scratch:
        folder = Path(scratch)
        junit = options.junit or run_suite(folder, quick=options.quick)
        failed = failed_tests(junit)
        if failed:
            print("No page is written, for these tests failed:", *failed, sep="\n", file=sys.stderr)
            return 1
        num_rows = options.rows or (QUICK_ROWS if options.quick else 1_000_000)
        text = page(read_faults(junit), resume_cost(folder, num_rows))
    if options.quick:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
    return 0


def run_suite(folder: Path, *, quick: bool) -> Path:
    """Run the fault tests and return the XML that pytest writes of them."""
    junit = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/faults"]
    command += ["--junitxml", str(junit), "--basetemp", str(folder / "tests")]
    command += ["-m", "not slow"] if quick else []
    subprocess.run(command, cwd=ROOT, check=False)
    return junit


def resume_cost(folder: Path, num_rows: int) -> ResumeCost:
    """Measure what going on costs."""
    zygote = Zygote()
    model = Workshop(zygote, folder / "workshop").inputs / "model"
    zygote.close()
    rows = folder / "rows"
    rows.mkdir()
    return measure_resume(rows, model, num_rows)


def page(faults: Sequence[Fault], cost: ResumeCost) -> str:
    """Return the page as Markdown."""
    versions = ((name, installed_version(name)) for name in PACKAGES)
    introduction = _INTRODUCTION.format(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cpu=cpu_name(),
        cores=os.cpu_count(),
        system=platform.system(),
        python=platform.python_version(),
        packages=", ".join(f"{name} {version}" for name, version in versions),
    )
    resume = _RESUME.format(
        rows=cost.num_rows,
        step=cost.step,
        fresh=cost.fresh_s,
        resumed=cost.resumed_s,
        difference=cost.resumed_s - cost.fresh_s,
    )
    return introduction + table(faults) + resume + _HOW


if __name__ == "__main__":
    sys.exit(main())
