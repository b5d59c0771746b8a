"""`luthier sweep`: a line a trial, and at the end the best settings."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.text import Text

from luthier.cli.run_picture import progress_words
from luthier.cli.terminal import console
from luthier.core.exit_codes import STOPPED
from luthier.core.units import format_seconds
from luthier.engine.interrupt import StopSignals
from luthier.recipes.config_flags import drop_flags, read_flags
from luthier.recipes.sweep_plan import ACTIONS, NUM_TRIALS, read_sweep
from luthier.report.sweep_page import shown

if TYPE_CHECKING:
    from luthier.recipes.run_record import RunRecord
    from luthier.recipes.sweep_record import SweepRecord, SweepTrial

_POLL_S = 0.5


def run(args: Sequence[str]) -> None:
    """Check the sweep, run its trials, and say what came of them.

    Args:
        args: A settings file with a `sweep` section; settings for all trials; `--num_trials`.

    Raises:
        LuthierError: Anything that the user can mend.
        SystemExit: The sweep was stopped and can go on.
    """
    plan = read_sweep(read_flags(args, options=(NUM_TRIALS,)))
    # Imported only now: a typo is answered before optuna is loaded.
    from luthier.recipes.sweep import run_sweep

    command = ["luthier", "sweep", *args]
    with (
        SweepScreen(console, plan.settings.metric) as screen,
        StopSignals(screen.signalled) as stop,
    ):
        record = run_sweep(plan, command, screen, stop, wait=lambda: time.sleep(_POLL_S))
    print_outcome(console, record, args)
    if len(record.done) < plan.settings.num_trials:
        sys.exit(STOPPED)


class SweepScreen:
    """Prints a line when a trial begins and one when it ends; a context.

    On a terminal a passing line between them says how far it is.
    """

    def __init__(self, terminal: Console, metric: str) -> None:
        self._terminal = terminal
        self._metric = metric
        self._status: Status | None = None

    def __enter__(self) -> SweepScreen:
        """Nothing is drawn before the first trial."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the passing line away."""
        self._close()

    def say(self, line: str) -> None:
        """Print what is worth a line, in grey."""
        self._terminal.print(Text(line, style="dim"), soft_wrap=True)

    def signalled(self, signal_name: str) -> None:
        """Say that a signal arrived and what happens now."""
        if signal_name == "SIGUSR1":
            self.say("SIGUSR1: the trial writes a checkpoint, and goes on.")
            return
        told = (
            "the trial under way writes a checkpoint, and the sweep ends. Once more stops at once."
        )
        self.say(f"{signal_name}: {told}")

    def begins(self, trial: SweepTrial, num_trials: int) -> None:
        """Print the values of a trial."""
        values = "  ".join(f"{name} {shown(value)}" for name, value in trial.params.items())
        head = f"trial {trial.number} ({trial.number + 1} of {num_trials})"
        self._terminal.print(Text.assemble((head, "bold"), f"  {values}"), soft_wrap=True)
        if self._terminal.is_terminal:
            self._status = self._terminal.status("[dim]the data and the model are being read[/]")
            self._status.start()

    def progress(self, run: RunRecord) -> None:
        """Say how far a trial is."""
        words = progress_words(run, 0.0)
        if self._status is not None and words:
            self._status.update(f"[dim]{escape(words)}[/]")

    def ended(self, trial: SweepTrial, best: SweepTrial | None) -> None:
        """Print what a trial came to, and the best so far."""
        self._close()
        line = Text("  ")
        if trial.state == "finished":
            line.append(f"{self._metric} {shown(trial.value)}", style="green")
        elif trial.state == "pruned":
            line.append(f"stopped early at step {trial.step:,}", style="yellow")
        else:
            line.append(f"failed: {trial.cause}", style="red")
        line.append(f"  {format_seconds(trial.seconds)}", style="dim")
        if best is not None and best != trial:
            line.append(f"  best: {shown(best.value)}, trial {best.number}", style="dim")
        self._terminal.print(line, soft_wrap=True)

    def _close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def print_outcome(terminal: Console, record: SweepRecord, args: Sequence[str]) -> None:
    """Print the best trial, where everything lies, and what to do next.

    Args:
        terminal: Where to.
        record: The sweep as it stands.
        args: The command's arguments, for the command that goes on.
    """
    from luthier.recipes.sweep import BEST_YAML, PAGE

    folder = Path(record.plan.config.run.output_dir).expanduser()
    best, wanted = record.best, record.plan.settings.num_trials
    done = len(record.done)
    is_over = done >= wanted
    state = "[bold green]Done[/]" if is_over else "[bold yellow]Stopped[/]"
    terminal.print(f"{state}: {done:,} of {wanted:,} {'trials' if wanted > 1 else 'trial'}.")
    lines: list[tuple[str, str]] = []
    if best is not None:
        found = f"{record.plan.settings.metric} {shown(best.value)}"
        lines.append(("best", f"{found}, trial {best.number}"))
        lines.append(("model", str(folder / best.name)))
        lines.append(("again", f"luthier train {shlex.quote(str(folder / BEST_YAML))}"))
    if (folder / PAGE).is_file():
        lines.append(("report", str(folder / PAGE)))
    if not is_over:
        words = drop_flags(args, ACTIONS)
        lines.append(("go on", f"luthier sweep {shlex.join(words)} --resume_from_checkpoint"))
    for label, text in lines:
        # For copying: no word is taken for markup, no line is folded.
        terminal.print(f"  {label:8}{text}", markup=False, highlight=False, soft_wrap=True)
