"""`luthier runs`: the runs below a folder as a table, by any setting or metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from luthier.cli.run_picture import STYLES
from luthier.cli.terminal import console
from luthier.core.errors import SettingsError
from luthier.core.units import format_count, format_seconds
from luthier.recipes.run_list import (
    ListedRun,
    check_names,
    list_runs,
    read_condition,
    select_runs,
    sort_runs,
)

COLUMNS = (
    *("name", "state", "stage", "model", "step", "loss", "best_eval_loss"),
    *("tokens_per_second", "seconds", "started"),
)
_TITLES = {
    "best_eval_loss": "best eval",
    "tokens_per_second": "tokens/s",
    "seconds": "time",
    "started": "started, UTC",
}
_WORDS = frozenset({"name", "state", "stage", "model", "started"})


def run(
    folder: str,
    *,
    where: Sequence[str],
    sort: str,
    columns: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print the runs at and below a folder.

    Args:
        folder: Searched at any depth.
        where: Conditions; all of them must hold.
        sort: A name; with `-` before it the largest comes first.
        columns: Names, by commas; None: `COLUMNS`.
        limit: Rows that are shown; None: all.
        as_json: For programs.

    Raises:
        RunError: There is no such folder.
        SettingsError: A name is unknown, or a condition is none.
    """
    conditions = [read_condition(text) for text in where]
    shown = read_columns(columns)
    runs = list_runs(Path(folder).expanduser())
    names = [condition.name for condition in conditions] + [sort.removeprefix("-"), *shown]
    check_names(names, runs)
    found = sort_runs(select_runs(runs, conditions), sort)
    kept = found[:limit]
    if as_json:
        console.print_json(data=[_as_json(one, shown if columns else None) for one in kept])
        return
    readable = [one for one in kept if one.problem is None]
    if readable:
        console.print(_table(readable, shown))
    for one in kept:
        if one.problem is not None:
            line = Text.assemble((f"{one.name}: ", "bold"), (_problem(one), "red"))
            console.print(line, soft_wrap=True)
    if not kept:
        console.print("There is no run here." if not runs else "No run is like that.")
    elif len(found) > len(kept):
        console.print(f"[dim]{len(found) - len(kept):,} more; --limit shows them.[/]")


def read_columns(text: str | None) -> list[str]:
    """Return the columns that are asked for.

    Raises:
        SettingsError: None is named.
    """
    if text is None:
        return list(COLUMNS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SettingsError(
            "no column is named",
            where="--columns",
            mend="Write names by commas: --columns name,learning_rate,eval_loss.",
        )
    return list(dict.fromkeys(names))


def cell(run: ListedRun, name: str) -> str:
    """Return one value as the table shows it; `-` where there is none."""
    value = run.get(name)
    if value is None:
        return "-"
    if name == "step":
        length = run.get("num_steps")
        return f"{value:,}" if length is None else f"{value:,}/{length:,}"
    if name == "seconds":
        return format_seconds(value)
    if name == "started":
        return str(value)[:16].replace("T", " ")
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("per_second"):
        return format_count(value)
    if "loss" in name and isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int | float):
        return f"{value:.6g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(runs: Sequence[ListedRun], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for name in columns:
        words = name in _WORDS or any(isinstance(run.get(name), str) for run in runs)
        justify = "left" if words else "right"
        table.add_column(_TITLES.get(name, name), justify=justify, overflow="fold")
    for one in runs:
        style = STYLES[one.facts["state"]]
        cells = [Text(cell(one, n), style=style if n == "state" else "") for n in columns]
        table.add_row(*cells)
    return table


def _as_json(run: ListedRun, columns: Sequence[str] | None) -> dict[str, Any]:
    head = {"folder": str(run.folder)}
    if run.problem is not None:
        return head | {"name": run.name, "problem": _problem(run)}
    if columns is not None:
        return head | {name: run.get(name) for name in columns}
    own = {"settings": dict(run.settings), "metrics": dict(run.metrics)}
    return head | dict(run.facts) | own


def _problem(run: ListedRun) -> str:
    assert run.problem is not None
    return f"{run.problem.where}: {run.problem.problem}"
