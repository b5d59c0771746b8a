"""What a run came to: before and after, where everything lies, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from luthier.core.units import format_seconds

if TYPE_CHECKING:
    from luthier.recipes.train import TrainResult


def print_summary(console: Console, result: TrainResult, args: Sequence[str]) -> None:
    """Print the outcome of a run.

    Args:
        console: Where to.
        result: The outcome.
        args: The command's arguments, for the command that goes on with a stopped run.
    """
    progress = result.progress
    if result.first_eval and result.last_eval:
        console.print(_before_after(result.first_eval, result.last_eval))
    if result.finished:
        console.print(
            f"[bold green]Done[/] in {format_seconds(result.seconds)}: "
            f"{progress.step:,} steps, {progress.num_supervised_seen:,} tokens taught."
        )
        console.print(f"  model   {result.folder}", highlight=False)
        console.print(f"  talk    luthier chat {shlex.quote(str(result.folder))}")
        return
    words = [word for word in args if word != "--overwrite_output_dir"]
    if "--resume_from_checkpoint" not in words:
        words.append("--resume_from_checkpoint")
    console.print(f"[bold yellow]Stopped[/] after step {progress.step:,} of {progress.num_steps:,}.")
    console.print(f"  go on   luthier train {shlex.join(words)}", soft_wrap=True)


def _before_after(first: dict[str, float], last: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("validation", "before", "after"):
        table.add_column(name, justify="left" if name == "validation" else "right")
    for key, label, form in (
        ("eval_loss", "loss", "{:.4f}"),
        ("eval_perplexity", "perplexity", "{:.2f}"),
        ("eval_token_accuracy", "token accuracy", "{:.1%}"),
    ):
        table.add_row(label, form.format(first[key]), form.format(last[key]))
    return table
