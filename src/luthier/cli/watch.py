"""`luthier watch`: follow a run from another terminal; it knows nothing of that."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from luthier.cli.run_picture import STYLES, draw_run, new_lines
from luthier.cli.terminal import Stopped, console
from luthier.core.errors import RunError
from luthier.core.exit_codes import STOPPED
from luthier.core.lock import is_locked, lock_holder
from luthier.core.units import format_seconds
from luthier.recipes.run_record import METRICS, RUN_YAML, SWEEP_JSON, RunReader, RunRecord

BROKEN_OFF = 1
"""Exit code for a run whose process died or ended with an error."""

_POLL_S = 1.0


class View(Protocol):
    """Shows a run, again and again."""

    def waiting(self, words: str) -> None:
        """There is no run yet."""
        ...

    def show(self, run: RunRecord) -> None:
        """The run as it is now."""
        ...


def run(folder: str) -> None:
    """Show a run until it ends, and leave with an exit code that says how.

    Args:
        folder: The run's; it may not be there yet.

    Raises:
        RunError: A file of the run is damaged, or the folder is a sweep's.
        Stopped: Ctrl-C ended the watching.
        SystemExit: The run was stopped (75) or broken off (1).
    """
    path = Path(folder).expanduser()
    try:
        with LiveView(console) if console.is_terminal else PlainView(console) as view:
            ended = follow(path, view, lambda: time.sleep(_POLL_S))
    except KeyboardInterrupt:
        console.print("Nobody watches any more; the run goes on.")
        raise Stopped from None
    took = f" after {format_seconds(ended.seconds)}" if ended.seconds else ""
    line = Text.assemble((ended.state, STYLES[ended.state]), f"{took}: step {ended.step:,}")
    console.print(line)
    if ended.state != "finished":
        sys.exit(STOPPED if ended.state == "stopped" else BROKEN_OFF)


def follow(folder: Path, view: View, wait: Callable[[], None]) -> RunRecord:
    """Show a run until no process is at work on it.

    Args:
        folder: The run's.
        view: Shows it.
        wait: Called between two looks.

    Returns:
        The run as it ended.

    Raises:
        RunError: A file of the run is damaged, or the folder is a sweep's.
    """
    reader = RunReader(folder)
    while True:
        if (folder / RUN_YAML).is_file():
            found = reader.read()
            view.show(found)
            if found.state != "running":
                return found
        elif (folder / SWEEP_JSON).is_file():
            newest = max((path.name for path in folder.glob("trial-*/")), default="trial-0000")
            raise RunError(
                "this is a sweep, and no run",
                where=str(folder),
                mend=f"Name a trial of it: luthier watch {shlex.quote(str(folder / newest))}",
            )
        elif is_locked(folder):
            view.waiting(f"A run begins in {folder}: its data and model are being read")
        else:
            view.waiting(f"Waiting for a run in {folder}; Ctrl-C ends this")
        wait()


class LiveView:
    """Draws one picture over the other; a context."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._live = Live(console=terminal, auto_refresh=False, vertical_overflow="ellipsis")

    def __enter__(self) -> LiveView:
        """Take the lower part of the terminal."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture where it is."""
        self._live.stop()

    def waiting(self, words: str) -> None:
        """Say that there is no run yet."""
        self._live.update(Text(words, style="dim"), refresh=True)

    def show(self, run: RunRecord) -> None:
        """Draw the run as it is now."""
        holder = lock_holder(run.folder) if run.state == "running" else ""
        picture = draw_run(run, self._terminal.width, _silent_s(run.folder), holder)
        self._live.update(picture, refresh=True)


class PlainView:
    """Prints each record of a run once, for a pipe or a file; a context."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._before: RunRecord | None = None
        self._said = ""

    def __enter__(self) -> PlainView:
        """Nothing is printed before there is something to say."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Everything is printed already."""

    def waiting(self, words: str) -> None:
        """Say once that there is no run yet."""
        if words != self._said:
            self._terminal.print(Text(words), soft_wrap=True)
            self._said = words

    def show(self, run: RunRecord) -> None:
        """Print what is new."""
        for line in new_lines(self._before, run):
            self._terminal.print(line, soft_wrap=True)
        self._before = run


def _silent_s(folder: Path) -> float:
    try:
        return max(0.0, time.time() - (folder / METRICS).stat().st_mtime)
    except FileNotFoundError:
        return 0.0
