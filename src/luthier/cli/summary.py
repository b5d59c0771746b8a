"""What a run came to: before and after, where everything lies, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from luthier.core.units import format_seconds
from luthier.recipes.config_flags import drop_flags

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
    first, last = result.first_eval, result.last_eval
    if first and last and first["step"] < last["step"]:
        console.print(_before_after(first, last))
    if result.finished:
        early = f" of {progress.num_steps:,}, ended early" if progress.ended_early else ""
        console.print(
            f"[bold green]Done[/] in {format_seconds(result.seconds)}: "
            f"{progress.step:,} steps{early}, {progress.num_supervised_seen:,} tokens taught."
        )
        _print_exactly(console, f"  model   {result.folder}")
        if result.can_chat:
            _print_exactly(console, f"  talk    luthier chat {shlex.quote(str(result.folder))}")
        return
    words = drop_flags(args, ("overwrite_output_dir", "resume_from_checkpoint", "allow_change"))
    command = f"luthier train {shlex.join(words)}"
    if not result.can_go_on:
        console.print("[bold yellow]Stopped[/] before the first step; there is no checkpoint.")
        _print_exactly(console, f"  again   {command} --overwrite_output_dir")
        return
    steps = f"{progress.step:,} of {progress.num_steps:,}"
    console.print(f"[bold yellow]Stopped[/] after step {steps}.")
    _print_exactly(console, f"  go on   {command} --resume_from_checkpoint")


def _print_exactly(console: Console, line: str) -> None:
    # For copying: no word is taken for markup, no line is folded.
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _before_after(first: dict[str, float], last: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    before = "before" if not first["step"] else f"after step {first['step']:,.0f}"
    after = f"after step {last['step']:,.0f}"
    table.add_column("validation")
    table.add_column(before, justify="right")
    table.add_column(after, justify="right")
    for key, label, form in (
        ("eval_loss", "loss", "{:.4f}"),
        ("eval_perplexity", "perplexity", "{:.2f}"),
        ("eval_bits_per_byte", "bits per byte", "{:.4f}"),
        ("eval_token_accuracy", "token accuracy", "{:.1%}"),
        ("eval_reward", "reward of the answers", "{:+.4f}"),
        ("eval_rewards/accuracies", "pairs ranked right", "{:.1%}"),
        ("eval_rewards/margins", "margin of rewards", "{:+.4f}"),
        ("eval_rewards/chosen", "reward of the better", "{:+.4f}"),
        ("eval_rewards/rejected", "reward of the worse", "{:+.4f}"),
        ("eval_kl", "KL from the reference", "{:.4f}"),
    ):
        if key in first:
            table.add_row(label, form.format(first[key]), form.format(last[key]))
    return table
