"""`luthier reproduce`: what differs today, the same training again, and whether it is equal."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from luthier.cli.terminal import console

if TYPE_CHECKING:
    from luthier.recipes.run_comparison import Comparison, LossDifference
    from luthier.recipes.run_differences import Today

DIFFERENT = 1
"""Exit code of a reproduction whose outcome is another."""

_STYLES = {"everything": "red", "the data": "yellow", "the last bits": "dim"}
_HASH = re.compile(r"[0-9a-f]{40,64}")
_SHOWN_HASH = 12
_SHOWN_TENSORS = 5


def run(
    folder: str,
    *,
    output_dir: str | None,
    verify: bool,
    check_only: bool,
    allow_changed_data: bool,
    moved: Mapping[str, str | list[str]],
    args: Sequence[str],
) -> None:
    """Show what differs, train again, and compare where that is asked for.

    Args:
        folder: The run's.
        output_dir: Where it is repeated; None: beside it.
        verify: Compare the outcome, and exit with 1 if it is another.
        check_only: Stop before training.
        allow_changed_data: Train even if the data is not what it was.
        moved: New places of data and model, by setting.
        args: The command's arguments, for the manifest.

    Raises:
        LuthierError: Anything that the user can mend.
    """
    from luthier.cli.display import TrainScreen
    from luthier.cli.summary import print_summary
    from luthier.core.exit_codes import STOPPED
    from luthier.engine.interrupt import StopSignals
    from luthier.recipes import reproduce
    from luthier.recipes.quiet import quiet_libraries

    quiet_libraries()
    earlier = reproduce.open_run(Path(folder), output_dir, moved)
    if not check_only:
        reproduce.refuse_used_folder(earlier)
    if verify:
        reproduce.refuse_unfinished(earlier)
    checked = reproduce.check_run(earlier)
    print_today(checked.today)
    reproduce.refuse_other_data(earlier, checked, allow_changed=allow_changed_data)
    if check_only:
        return
    command = ["luthier", "reproduce", *args]
    with TrainScreen(console) as screen, ExitStack() as signals:
        stop = StopSignals(screen.signalled)
        if earlier.config.run.trainer == "luthier":
            # The Trainer writes no checkpoint: there, Ctrl-C ends the command at once.
            signals.enter_context(stop)
        result = reproduce.reproduce(earlier, command, screen, stop)
    print_summary(console, result, [str(result.folder / "run.yaml")])
    if not result.finished:
        sys.exit(STOPPED)
    if verify:
        comparison = reproduce.verify(earlier, result)
        print_comparison(comparison)
        if not comparison.identical:
            sys.exit(DIFFERENT)


def print_today(today: Today) -> None:
    """Print what is the same, counted, and what differs, the worst first."""
    if today.differences:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in ("differs today", "then", "now", "can change"):
            table.add_column(name, overflow="fold")
        for found in today.differences:
            effect = Text(found.effect, style=_STYLES[found.effect])
            table.add_row(Text(found.title), _short(found.then), _short(found.now), effect)
        console.print(table)
    console.print(
        f"[bold]today[/] {today.num_same} facts are the same, {len(today.differences)} differ"
    )
    if today.unrecorded:
        console.print(Text(f"not recorded then: {', '.join(today.unrecorded)}", style="dim"))


def print_comparison(found: Comparison) -> None:
    """Print where two outcomes part, and the verdict as the last line."""
    if found.changed_since:
        console.print("[yellow]note[/]  the model of the run was changed since it was trained")
    if not found.same_weights:
        _print_tensors(found)
    if found.first_loss is not None:
        console.print(Text(_first_loss(found.first_loss)))
    if found.num_alone:
        alone = f"{found.num_alone:,} logged steps stand in one of the two runs alone"
        console.print(f"[yellow]note[/]  {alone}")
    weights = "equal" if found.same_weights else "differ"
    losses = "equal" if found.first_loss is None else "differ"
    compared = f"{found.num_records:,} logged steps compared"
    if found.identical:
        hashed = f"sha256 {str(found.now)[:_SHOWN_HASH]}"
        verdict = f"{found.num_tensors:,} tensors are equal bit for bit ({hashed})"
        console.print(f"[bold green]identical[/] {verdict}, {compared}", soft_wrap=True)
    else:
        verdict = f"weights {weights}, losses {losses}, {compared}"
        console.print(f"[bold red]different[/] {verdict}", soft_wrap=True)


def _print_tensors(found: Comparison) -> None:
    if not found.tensors:
        then = f"sha256 {str(found.then)[:_SHOWN_HASH]} -> {str(found.now)[:_SHOWN_HASH]}"
        console.print(f"the run's own model is not there to compare with: {then}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(f"{len(found.tensors):,} tensors differ", overflow="fold")
    for name in ("largest", "mean"):
        table.add_column(name, justify="right")
    for one in found.tensors[:_SHOWN_TENSORS]:
        numbers = [one.problem, ""]
        if one.largest is not None:
            numbers = [f"{one.largest:.3g}", f"{one.mean:.3g}"]
        table.add_row(escape(one.name), *numbers)
    console.print(table)


def _first_loss(found: LossDifference) -> str:
    kind = {"train": "training", "eval": "validation"}[found.kind]
    name = found.name.removeprefix("eval_")
    return (
        f"the first that differs: {kind} {name} of step {found.step}, {found.then} -> {found.now}"
    )


def _short(value: str) -> Text:
    return Text(value[:_SHOWN_HASH] if _HASH.fullmatch(value) else value)
