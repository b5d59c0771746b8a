"""`luthier compare`: runs side by side in the terminal, and as a page with their curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table as Drawn
from rich.text import Text

from luthier.cli.terminal import console

if TYPE_CHECKING:
    from luthier.report.run_tables import Table


def run(folders: Sequence[str], *, out: str | None) -> None:
    """Print in which settings runs differ, their metrics and their evaluations; write the page.

    Args:
        folders: Of the runs.
        out: The page's file; None: no page.

    Raises:
        SettingsError: There are fewer than two.
        RunError: One of them can't be read, or the page can't be written.
    """
    from luthier.recipes.compare import read_runs, write_comparison
    from luthier.report.comparison import metrics_table, results_table, settings_table
    from luthier.report.words import say

    runs = read_runs([Path(folder).expanduser() for folder in folders])
    settings = settings_table(runs)
    if settings.rows:
        console.print(_drawn(settings))
    else:
        console.print(say("compare_same").en)
    console.print()
    console.print(_drawn(metrics_table(runs)))
    results = results_table(runs)
    if results is not None:
        console.print()
        console.print(_drawn(results))
    if out is not None:
        page = Path(out).expanduser()
        write_comparison(runs, page)
        console.print(f"written {page}", markup=False, highlight=False, soft_wrap=True)


def _drawn(table: Table) -> Drawn:
    drawn = Drawn(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for at, name in enumerate(table.columns):
        drawn.add_column(Text(name.en), justify="right" if at else "left", overflow="fold")
    for row in table.rows:
        # Names of runs and values of settings are no markup.
        drawn.add_row(*(Text(cell.en) for cell in row))
    return drawn
