"""`luthier inspect`: the rows as the model will see them, and what the run will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from luthier.cli.terminal import console
from luthier.core.errors import SettingsError
from luthier.core.units import format_bytes, format_count, format_seconds, format_share
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command

if TYPE_CHECKING:
    from luthier.recipes.inspection import Inspection
    from luthier.recipes.shown_rows import Piece, ShownRow

TAUGHT, AVOIDED, SEEN = "bold green", "bold red", "dim"

LOSSES = (
    (0.5, "below 0.5, known", "green"),
    (2.0, "below 2", "yellow"),
    (5.0, "below 5", "dark_orange"),
    (math.inf, "5 and more, new", "bold red"),
)
"""Upper edge, words and style of each class of losses."""

# A control character in the data is shown, and never obeyed by the terminal: ␛ for ESC, ␍ for CR.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def run(args: Sequence[str]) -> None:
    """Print rows with the taught tokens in colour, counts, warnings and an estimate.

    Args:
        args: Settings; `--rows N` for how many rows are shown (3); `--loss` to colour their
            tokens by the loss of the model as it is.

    Raises:
        LuthierError: As training itself would.
    """
    command = read_flags(args, options=("rows", "loss"))
    with_losses = command.options.get("loss") is True
    num_rows = _number(command.options.get("rows", "3"))
    resolved = resolve_command(command)
    from luthier.cli.display import TrainScreen
    from luthier.recipes.inspection import inspect_run
    from luthier.recipes.quiet import quiet_libraries

    quiet_libraries()
    with TrainScreen(console) as screen:
        found = inspect_run(resolved.config, screen, num_rows, with_losses=with_losses)
    for row in found.rows:
        console.print(_row(row))
    is_judged = any(row.judgement is not None for row in found.rows)
    console.print(_loss_legend() if with_losses else _legend(is_judged=is_judged))
    console.print(_counts(found))
    console.print(_histogram(found))
    console.print(_estimate(found, is_auto=resolved.config.batches.is_auto))
    for notice in found.notices:
        console.print(f"[yellow]note[/]  {escape(str(notice))}", soft_wrap=True)
    if not found.notices:
        console.print("[green]No warnings.[/]")


def _number(value: str | bool) -> int:
    if isinstance(value, str) and value.isdigit():
        return int(value)
    raise SettingsError(
        f"rows is {value!r}, and must be a whole number", where="--rows", mend="Write --rows 5."
    )


def _row(row: ShownRow) -> Panel:
    text = Text()
    for piece in row.pieces:
        style = _style(piece, row.judgement)
        shown = piece.text.translate(_VISIBLE)
        if piece.taught and not _has_colour():
            shown = f"⟦{shown}⟧" if piece.loss is None else f"⟦{shown} {piece.loss:.1f}⟧"
        style = f"{style} reverse" if piece.special else style
        text.append(shown, style=style)
    # A title is cut to the terminal: a path with its folders would push the counts out.
    origin = Path(row.origin).name
    title = f"{origin}: {row.num_tokens} tokens, {row.num_taught} taught"
    if row.judgement is not None:
        title = f"{origin}, {row.judgement}: {row.num_tokens} tokens, {row.num_taught} judged"
    return Panel(text, title=escape(title), title_align="left", border_style="dim")


def _style(piece: Piece, judgement: str | None) -> str:
    if not piece.taught:
        return SEEN
    if piece.loss is None:
        return AVOIDED if judgement in ("worse", "unwanted") else TAUGHT
    return next(style for limit, _, style in LOSSES if piece.loss < limit)


def _loss_legend() -> Text:
    if not _has_colour():
        return Text("⟦taught token, its loss in nats⟧  seen, not taught")
    legend = Text("loss in nats: ")
    for _, label, style in LOSSES:
        legend.append(f"{label}", style=style).append("   ")
    return legend.append("seen, not taught", style=SEEN)


def _legend(*, is_judged: bool) -> Text:
    if not _has_colour():
        return Text("⟦judged⟧  seen" if is_judged else "⟦taught⟧  seen, not taught")
    legend = Text.assemble(("taught", TAUGHT), "   ", ("seen, not taught", SEEN), "   ")
    if is_judged:
        legend = Text.assemble(("to prefer", TAUGHT), "   ", ("to avoid", AVOIDED), "   ")
        legend.append("seen, not judged", style=SEEN).append("   ")
    return legend.append("control token", style="reverse")


def _has_colour() -> bool:
    return console.color_system is not None


def _counts(found: Inspection) -> Table:
    manifest = found.data.prepared.manifest
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rows", "count"):
        table.add_column(name, justify="left" if name == "rows" else "right")
    counts = manifest["counts"]
    table.add_row("read", f"{counts['rows_read']:,}")
    for reason, count in counts["dropped"].items():
        table.add_row(f"left out: {reason}", f"{count:,}")
    table.add_row("cut to cutoff_len", f"{counts['truncated_rows']:,}")
    if counts.get("continued_rows"):
        table.add_row("continued in the next row", f"{counts['continued_rows']:,}")
    for name, split in manifest["splits"].items():
        taught = format_share(split["supervised_tokens"], split["tokens"])
        table.add_row(f"{name} rows", f"{split['rows']:,}")
        if "desirable" in split:
            table.add_row(f"{name} rows, wanted", f"{split['desirable']:,}")
        table.add_row(f"{name} tokens", f"{format_count(split['tokens'])} ({taught} taught)")
    return table


def _histogram(found: Inspection) -> Table:
    from luthier.dataset.prepared import row_lengths
    from luthier.recipes.inspection import length_histogram

    bins = length_histogram(row_lengths(found.data.prepared.train))
    most = max(count for _, _, count in bins)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("length in tokens", justify="right")
    table.add_column("training rows")
    for low, high, count in bins:
        bar = "█" * round(40 * count / most)
        table.add_row(f"{low:,} to {high:,}", f"[cyan]{bar}[/] {count:,}")
    return table


def _estimate(found: Inspection, *, is_auto: bool) -> Table:
    estimate, shape = found.estimate, found.shape
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("this run, estimated for this machine")
    table.add_column("")
    trained = format_share(shape.parameters.trained, shape.parameters.total)
    table.add_row(
        "parameters",
        f"{format_count(shape.parameters.total)}, {format_count(shape.parameters.trained)} trained "
        f"({trained})",
    )
    table.add_row("optimiser steps", f"{estimate.num_steps:,}")
    table.add_row("padding", f"{100 * estimate.padding_share:.0f} % of the computed positions")
    table.add_row("time", f"about {format_seconds(estimate.seconds)} in {found.precision}")
    recomputed = ", activations recomputed" if estimate.recomputes else ""
    # Micro-batches are then cut to what fits, down to the longest row.
    about = "at least" if is_auto else "about"
    table.add_row("memory", f"{about} {format_bytes(estimate.memory_bytes)}{recomputed}")
    return table
