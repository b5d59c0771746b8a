"""The screen of a preparation: one line for each step while it works, with rows a second."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from luthier.core.units import format_count, format_seconds

_LEAST_S = 0.5
"""A speed is shown once this much time has passed: earlier it is a guess."""


class PrepareScreen:
    """Draws the progress of steps. A context: leaving it takes the line away."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name = ""
        self._began_s = 0.0

    def __enter__(self) -> PrepareScreen:
        """Nothing is drawn before there is something to draw."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away, so that what comes next stands alone."""
        if self._bar is not None:
            self._bar.stop()

    def report(self, name: str, done: int, total: int) -> None:
        """Show how far a step is.

        Args:
            name: The step.
            done: Rows done.
            total: Rows there are; 0 where nobody knows yet.
        """
        if name != self._name:
            self._name, self._began_s = name, time.monotonic()
            if not self._console.is_terminal:
                self._console.print(Text(name, style="dim"))
                return
            self._open(name)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=done, total=total or None, speed=self._speed(done, total)
            )

    def _open(self, name: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[speed]}", style="dim", markup=False),
                console=self._console,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=None, speed="")

    def _speed(self, done: int, total: int) -> str:
        rows = f"{done:,} rows" if not total else f"{done:,} of {total:,} rows"
        passed_s = time.monotonic() - self._began_s
        if passed_s < _LEAST_S or not done:
            return rows if done else ""
        rate = done / passed_s
        left = f" · {format_seconds((total - done) / rate)} left" if total > done else ""
        return f"{rows} · {format_count(rate)} rows/s{left}"
