"""How a corpus looks on a terminal: what each step did, what is left, rows that were dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from luthier.core.units import format_count, format_seconds, format_share

_PER_REASON = 3
_CHARS = 400
_SHORT_HASH = 12
_UNTOLD = "unknown"
"""The language of rows that no step has named one for."""

# A control character in the data is shown, and never obeyed by the terminal: ␛ for ESC, ␍ for CR.
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def print_steps(console: Console, steps: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each step: rows in, rows dropped and why, what was done to the others."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("step")
    for name in ("rows in", "dropped"):
        table.add_column(name, justify="right")
    table.add_column("reasons, and what was done to rows that stay", overflow="fold")
    table.add_column("time", justify="right")
    for step in steps:
        num_dropped = sum(step["dropped"].values())
        time = "kept" if step["from_cache"] else format_seconds(step["seconds"])
        table.add_row(
            step["name"],
            f"{step['rows_in']:,}",
            f"{num_dropped:,}" if num_dropped else Text("-", style="dim"),
            _reasons(step),
            Text(time, style="dim"),
        )
    console.print(table)


def print_outcome(console: Console, manifest: Mapping[str, Any]) -> None:
    """Print what is left, the split with its audit, warnings and the data version."""
    before, after = (manifest["statistics"][name] for name in ("before", "after"))
    share = format_share(after["rows"], before["rows"])
    told = after["languages"] if set(after["languages"]) != {_UNTOLD} else {}
    languages = ", ".join(
        f"{name} {format_share(count, after['rows'])}" for name, count in list(told.items())[:4]
    )
    console.print(
        f"[bold]left[/] {after['rows']:,} of {before['rows']:,} rows ({share}), about "
        f"{format_count(after['tokens'])} of {format_count(before['tokens'])} tokens"
        f"{'; ' if languages else ''}{languages}"
    )
    split = manifest["split"]
    if split is not None:
        audit = split["audit"]
        leaked = format_share(audit["num_relatives"], split["val"]["rows"])
        style = "green" if audit["num_relatives"] == 0 else "bold red"
        console.print(
            f"[bold]split[/] {split['train']['rows']:,} to train, {split['val']['rows']:,} to "
            f"validate; [{style}]validation rows with a near-twin in training: "
            f"{audit['num_relatives']:,} ({leaked})[/]"
        )
    for warning in manifest["warnings"]:
        told = f"{warning['setting']}: {warning['reason']}"
        console.print(f"[yellow]warning[/] {escape(told)}", soft_wrap=True)
    console.print(f"[bold]data version[/] {manifest['data_version'][:_SHORT_HASH]}")


def print_drops(console: Console, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print a few dropped rows of each reason."""
    for reason, rows in samples.items():
        console.print(f"\n[bold]{escape(reason)}[/]")
        for row in rows[:_PER_REASON]:
            print_drop(console, row, _CHARS)


def print_drop(console: Console, row: Mapping[str, Any], num_chars: int | None = None) -> None:
    """Print a dropped row, and beside it the row that it is like, where there is one."""
    score = "" if row["score"] is None else f" ({row['score']:.2f})"
    panels = [panel(row["text"], row["id"], "red", num_chars)]
    panels[0].subtitle = escape(f"{row['detail']}{score}")
    if row["matched_text"] is not None:
        panels.append(panel(row["matched_text"], f"kept: {row['matched_id']}", "green", num_chars))
    elif row["matched_id"] is not None:
        panels[0].subtitle = escape(f"{row['detail']}{score}, like {row['matched_id']}")
    if len(panels) == 1:
        console.print(panels[0])
        return
    width = console.width // 2 - 1
    for one in panels:
        one.width = width
    console.print(Columns(panels, expand=True))


def panel(text: str, title: str, style: str, num_chars: int | None = None) -> Panel:
    """Return a row in a frame."""
    shown = text.translate(VISIBLE)
    if num_chars is not None and len(shown) > num_chars:
        shown = f"{shown[:num_chars]}…"
    return Panel(Text(shown), title=escape(title), title_align="left", border_style=style)


def _reasons(step: Mapping[str, Any]) -> Text:
    parts = [f"{reason} {count:,}" for reason, count in step["dropped"].items()]
    text = Text(", ".join(parts), style="red")
    done = [f"{name} {count:,}" for name, count in step["counts"].items()]
    if parts and done:
        text.append("; ")
    return text.append(", ".join(done), style="dim")
