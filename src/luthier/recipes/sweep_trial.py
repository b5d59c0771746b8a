"""One trial of a sweep: `luthier train` in a process of its own, watched through its run folder.

A child process gives its memory back whole, also after an out-of-memory, and when it crashes the
sweep lives on. It costs the seconds that importing torch takes. What it measures is read from its
metrics.jsonl, and it is stopped by SIGTERM: so a trial is a run like any other.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from luthier.checkpoints.listing import list_checkpoints
from luthier.core.exit_codes import STOPPED
from luthier.core.lock import is_locked
from luthier.recipes.run_record import RUN_YAML, RunReader, RunRecord

TRAIN: tuple[str, ...] = (sys.executable, "-m", "luthier", "train")
"""The command that trains; a settings file and flags follow it."""

_STDERR_TAIL_BYTES = 8192


class Stop(Protocol):
    """Tells whether the user wants the sweep to stop (`engine/interrupt.py` has one)."""

    has_work: bool

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        ...

    def take_checkpoint_request(self) -> bool:
        """Whether a checkpoint is wanted, asked once."""
        ...


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """How the process of a trial ended.

    Attributes:
        code: Its exit code; below 0 the number of the signal that killed it.
        run: What it left; None where it left no run.
        was_pruned: Whether it was asked to stop for its values.
        cause: What it said last, where it failed.
    """

    code: int
    run: RunRecord | None
    was_pruned: bool
    cause: str = ""


def run_trial(
    settings_file: Path,
    folder: Path,
    look: Callable[[RunRecord], bool],
    stop: Stop,
    wait: Callable[[], None],
    train: Sequence[str] = TRAIN,
) -> TrialEnd:
    """Train one trial, or go on with it where it has a checkpoint, until it ends or is stopped.

    Args:
        settings_file: Its settings.
        folder: Its run folder. What a killed trial without a checkpoint left there is removed.
        look: Told how the run stands, again and again; it returns whether to stop it early.
        stop: Asked between two looks; the trial is then stopped with a checkpoint.
        wait: Called between two looks.
        train: The command that trains.

    Raises:
        LuthierError: What `look` raises; the process is ended.
    """
    before = RunReader(folder)
    while is_locked(folder) and not stop.requested:  # Its process has outlived the sweep's.
        if (folder / RUN_YAML).is_file():
            look(before.read())
        wait()
    if stop.requested:
        return TrialEnd(STOPPED, None, was_pruned=False)
    left = before.read() if (folder / RUN_YAML).is_file() else None
    if left is not None and left.state == "finished":
        look(left)
        return TrialEnd(0, left, was_pruned=False)
    command = [*train, str(settings_file)]
    if list_checkpoints(folder):
        command.append("--resume_from_checkpoint")
    elif folder.is_dir():
        shutil.rmtree(folder)
    log = log_file(folder)
    with log.open("ab") as output:
        begin = output.tell()
        # In a session of its own: Ctrl-C is the sweep's, which then asks the trial to stop.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        was_pruned = _follow(process, folder, look, stop, wait)
    except BaseException:
        process.kill()
        process.wait()
        raise
    run = RunReader(folder).read() if (folder / RUN_YAML).is_file() else None
    if run is not None:
        look(run)  # What it wrote between the last look and its end.
    code = process.returncode
    cause = "" if code in (0, STOPPED) else read_cause(log, begin, code)
    return TrialEnd(code, run, was_pruned, cause)


def log_file(folder: Path) -> Path:
    """Return where the output of a trial's process goes: beside its run folder."""
    return folder.with_name(f"{folder.name}.log")


def read_cause(log: Path, begin: int, code: int) -> str:
    """Return why a trial failed, in one line.

    Args:
        log: What its process printed.
        begin: The byte at which its newest start begins.
        code: Its exit code.
    """
    with log.open("rb") as stream:
        stream.seek(max(begin, log.stat().st_size - _STDERR_TAIL_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in told if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}; is the memory too small?"
    return told[-1] if told else f"its process ended with exit code {code} and said nothing"


def _follow(
    process: subprocess.Popen[Any],
    folder: Path,
    look: Callable[[RunRecord], bool],
    stop: Stop,
    wait: Callable[[], None],
) -> bool:
    reader = RunReader(folder)
    was_pruned = was_asked = False
    while process.poll() is None:
        wait()
        # A folder that is not locked is still that of the start before.
        if (folder / RUN_YAML).is_file() and is_locked(folder):
            was_pruned = look(reader.read()) or was_pruned
        if (was_pruned or stop.requested) and not was_asked:
            process.send_signal(signal.SIGTERM)
            was_asked = True
        if stop.take_checkpoint_request() and os.name == "posix":
            process.send_signal(signal.SIGUSR1)
    return was_pruned
