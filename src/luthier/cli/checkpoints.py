"""`luthier checkpoints`: which checkpoints a run has, and whether each is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from luthier.cli.terminal import console, error_console
from luthier.core.errors import RunError
from luthier.core.units import format_bytes

if TYPE_CHECKING:
    from luthier.checkpoints.listing import FoundCheckpoint
    from luthier.recipes.checkpoint_list import CheckpointList


def run(folder: str, *, as_json: bool) -> None:
    """Verify every checkpoint of a run and print what was found.

    Args:
        folder: The run's folder.
        as_json: For programs.

    Raises:
        RunError: The folder is no run's, or a checkpoint is damaged; that is raised after all of
            them were printed.
    """
    from luthier.recipes.checkpoint_list import checkpoint_list

    with error_console.status("Reading every file of every checkpoint"):
        listed = checkpoint_list(Path(folder).expanduser())
    if as_json:
        console.print_json(data=listed.as_json())
    else:
        _print(listed)
    damaged = listed.damaged()
    if damaged:
        names = ", ".join(checkpoint.path.name for checkpoint in damaged)
        count = "1 checkpoint is" if len(damaged) == 1 else f"{len(damaged)} checkpoints are"
        raise RunError(f"{count} damaged: {names}", where=str(listed.run), mend=_resumption(listed))


def _print(listed: CheckpointList) -> None:
    if not listed.found:
        console.print("This run has no checkpoints yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("checkpoint", "step", "part", "written", "size", "eval loss", "", "verified"):
        right = name in ("step", "part", "size", "eval loss")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for checkpoint in listed.found:
        loss = checkpoint.eval_loss
        table.add_row(
            checkpoint.path.name,
            f"{checkpoint.step:,}",
            str(checkpoint.part) if checkpoint.part else "-",
            checkpoint.written or "-",
            format_bytes(checkpoint.num_bytes),
            "-" if loss is None else f"{loss:.4f}",
            " ".join(listed.marks(checkpoint)),
            _verified(checkpoint),
        )
    console.print(table)
    if not listed.damaged():
        console.print(_resumption(listed))


def _verified(checkpoint: FoundCheckpoint) -> Text:
    if checkpoint.problem is not None:
        return Text(checkpoint.problem, style="red")
    text = Text("ok", style="green")
    if checkpoint.unknown_files:
        # A name may hold what the terminal would obey.
        names = ", ".join(n if n.isprintable() else repr(n) for n in checkpoint.unknown_files)
        text.append(f"; not luthier's: {names}", style="yellow")
    return text


def _resumption(listed: CheckpointList) -> str:
    if listed.latest is None:
        return "No checkpoint is good: --resume_from_checkpoint has nothing to go on from."
    return f"A bare --resume_from_checkpoint goes on from {listed.latest.path.name}."
