"""The faults that are tried by the dozen: each hurts one run once, and says whether it survived."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_injection.harness import Run, line_with
from fault_injection.workshop import Whole, Workshop
from luthier.checkpoints.listing import FOLDER
from luthier.engine.metrics_file import read_metrics
from luthier.recipes.run_folder import METRICS

STOPPED, ENDED_AT_ONCE = 75, 130
"""Exit codes of a run that a signal ended: with a checkpoint, and with nothing to save yet."""

Damage = Callable[[Path, random.Random], str]


@dataclass(frozen=True)
class Trial:
    """One fault and what came of it.

    Attributes:
        what: Where it struck.
        problems: Empty where the run ended as if nothing had happened.
        printed: What the user saw.
    """

    what: str
    problems: tuple[str, ...]
    printed: str

    def line(self, words: str) -> str:
        """Return the first printed line that holds some words; empty where none does."""
        return line_with(words, self.printed)


def judge(run: Run, whole: Whole) -> tuple[str, ...]:
    """Return what differs between a run that was hurt and one that was not, by name."""
    found, expected = run.outcome(), whole.outcome
    different = [name for name in expected if found[name] != expected[name]]
    return (*different, *run.leftovers())


def kill_at_times(
    workshop: Workshop, num_trials: int, seed: int, settings: Mapping[str, Any]
) -> Iterator[Trial]:
    """Kill -9 a run at random times, and go on."""
    whole, draw = workshop.whole(**settings), random.Random(seed)
    while num_trials:
        run, seconds = workshop.run(**settings), draw.uniform(0, whole.seconds)
        child = run.start()
        if not child.lives_after(seconds):
            continue  # It was quicker than the one that was timed: nothing was hurt.
        if not kill(run):
            continue
        run.go_on()
        yield Trial(f"after {seconds:.3f} s", judge(run, whole), run.said())
        num_trials -= 1


def kill(run: Run) -> bool:
    """Kill -9 a run's newest process; return whether it was the signal that ended it."""
    child = run.children[-1]
    send(child.pid, signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


def send(pid: int, number: signal.Signals, *, to_group: bool = False) -> None:
    """Send a signal to a process, or with all that it has started; one that has ended gets none."""
    try:
        (os.killpg if to_group else os.kill)(pid, number)
    except ProcessLookupError:
        return


def kill_at_operations(
    workshop: Workshop, numbers: Sequence[int], settings: Mapping[str, Any]
) -> Iterator[Trial]:
    """Kill -9 a run right before an operation on its files, and go on."""
    whole = workshop.whole(**settings)
    for number in numbers:
        run = workshop.run(**settings)
        code = run.train(kill_at=number)
        what = f"before operation {number}, {whole.operations[number - 1]}"
        if code != -signal.SIGKILL:
            yield Trial(what, (f"exit code {code} and no death",), run.said())
            continue
        run.go_on()
        yield Trial(what, judge(run, whole), run.said())


def stop_at_times(
    workshop: Workshop,
    num_trials: int,
    seed: int,
    settings: Mapping[str, Any],
    number: signal.Signals = signal.SIGTERM,
) -> Iterator[tuple[Trial, float]]:
    """Stop a run by a signal at random times within its training, and do as it says.

    Yields:
        Each trial, and the seconds from the signal to the end of the process.
    """
    whole, draw = workshop.whole(**settings), random.Random(seed)
    records = read_metrics(whole.run.folder / METRICS)
    trained_s = records[-1]["elapsed_seconds"] - records[0]["elapsed_seconds"]
    while num_trials:
        run = workshop.run(**settings)
        child = run.start()
        child.wait_for("step     0 ")
        if not child.lives_after(draw.uniform(0, trained_s)):
            continue  # It had ended before its time came.
        sent_s = time.perf_counter()
        send(child.pid, number)
        code = child.wait()
        if code in (0, ENDED_AT_ONCE) or child.line("Done in "):
            continue  # The signal came after the last step, or before the first micro-batch.
        seconds = child.ended_s() - sent_s
        run.follow_advice()
        problems = judge(run, whole) + (() if code == STOPPED else (f"exit code {code}",))
        yield Trial(f"exit code {code}", problems, child.text()), seconds
        num_trials -= 1


def flip_bit(file: Path, draw: random.Random) -> str:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    return f"a bit of {file.name} flipped, byte {place:,}"


def cut(file: Path, draw: random.Random) -> str:
    """Cut the end of a file off."""
    size = draw.randrange(file.stat().st_size)
    with file.open("r+b") as stream:
        stream.truncate(size)
    return f"{file.name} cut to {size:,} bytes"


def remove(file: Path, draw: random.Random) -> str:
    """Remove a file."""
    del draw
    file.unlink()
    return f"{file.name} removed"


def lengthen(file: Path, draw: random.Random) -> str:
    """Add bytes to a file."""
    extra = draw.randbytes(draw.randint(1, 64))
    file.write_bytes(file.read_bytes() + extra)
    return f"{file.name} longer by {len(extra)} bytes"


DAMAGES: tuple[Damage, ...] = (flip_bit, cut, remove, lengthen)


def corruptions(whole: Whole, num_trials: int | None, seed: int) -> Iterator[tuple[str, Damage]]:
    """Yield a file of the newest checkpoint, relative to it, and what is done to it.

    Args:
        whole: A run with at least two checkpoints.
        num_trials: Drawn at random, but each damage to each file first; None for those alone.
        seed: Of what is drawn.
    """
    newest = newest_folder(whole.run)
    files = sorted(str(p.relative_to(newest)) for p in newest.rglob("*") if p.is_file())
    every = [(name, damage) for name in files for damage in DAMAGES]
    draw = random.Random(seed)
    drawn = draw.choices(every, k=max(0, (num_trials or 0) - len(every)))
    yield from (every + drawn)[:num_trials]


def newest_folder(run: Run) -> Path:
    """Return the checkpoint of the highest step, good or bad."""
    return sorted((run.folder / FOLDER).glob("step-*"))[-1]


def damage_and_go_on(
    workshop: Workshop, whole: Whole, name: str, damage: Damage, seed: int
) -> Trial:
    """Damage one file of a run's newest checkpoint, look at it, and go on from the one before."""
    run = workshop.copy_of(whole.run)
    newest = newest_folder(run)
    what = damage(newest / name, random.Random(seed))
    problems: list[str] = []
    listing = run.start(command="checkpoints")
    if listing.wait() == 0 or f"damaged: {newest.name}" not in listing.text():
        problems.append(f"not detected: {listing.text()}")
    child = run.go_on()
    printed = child.text()
    if newest.name not in line_with("Passed over a damaged checkpoint", printed):
        problems.append(f"the bad one was not named: {printed}")
    problems += judge(run, whole)
    shutil.rmtree(run.root)
    return Trial(what, tuple(problems), printed)
