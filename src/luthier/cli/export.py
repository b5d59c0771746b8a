"""`luthier export`: the trained model for other programs, each artifact run and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from luthier.cli.display import TrainScreen
from luthier.cli.terminal import console, on_one_line

if TYPE_CHECKING:
    from luthier.recipes.export import Exported, ExportRequest

_FAILED = 1
"""Exit code where a check failed."""
_SHOWN_CHARS = 160
_MB = 1e6
_STYLES = {"passed": "green", "failed": "bold red", "not checked": "yellow"}


def run(request: ExportRequest) -> None:
    """Export a model and show how its artifacts did.

    Raises:
        LuthierError: Anything that the user can mend.
        SystemExit: An artifact failed its check.
    """
    from luthier.recipes.export import export
    from luthier.recipes.quiet import quiet_libraries

    quiet_libraries()
    with TrainScreen(console) as screen:
        exported = export(request, screen)
    show(exported)


def show(exported: Sequence[Exported]) -> None:
    """Print the table, answers that differ, and what is out of bounds.

    Raises:
        SystemExit: An artifact failed its check.
    """
    for one in exported:
        _print_samples(one)
    console.print(results_table(exported))
    for one in exported:
        name = one.folder.name
        for problem in one.result.problems:
            told = f"{name}: {problem}"
            console.print(Text.assemble(("failed  ", "bold red"), told), soft_wrap=True)
        if one.result.not_checked is not None:
            told = f"{name}: {one.result.not_checked}"
            console.print(Text.assemble(("not checked  ", "yellow"), told), soft_wrap=True)
        for note in one.notes:
            console.print(Text.assemble(("note  ", "yellow"), f"{name}: {note}"), soft_wrap=True)
    for one in exported:
        console.print(str(one.folder), style="dim", markup=False, soft_wrap=True)
    if any(one.result.problems for one in exported):
        raise SystemExit(_FAILED)


def results_table(exported: Sequence[Exported]) -> Table:
    """Return a line for each artifact: size, time, and how far it is from the trained model."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("target")
    table.add_column("type")
    for name in ("MB", "seconds", "PPL", "KL", "top-1"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for one in exported:
        result = one.result
        table.add_row(
            one.target,
            one.kind or "",
            f"{one.num_bytes / _MB:,.0f}" if one.num_bytes >= _MB else "<1",
            f"{one.seconds:,.1f}",
            _number(result.ppl, ".5g"),
            _number(result.kl, ".2g"),
            _number(result.top1, ".3f"),
            Text(result.verdict, _STYLES[result.verdict]),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _print_samples(one: Exported) -> None:
    """Print the first prompt whose answers differ: nothing to judge by, but worth a look."""
    differing = (s for s in one.result.samples if s.trained != s.artifact)
    sample = next(differing, None)
    if sample is None:
        return
    console.print(Text(f"{one.folder.name} answers otherwise:", "cyan"))
    texts = (("prompt", sample.prompt), ("trained", sample.trained), ("artifact", sample.artifact))
    for name, text in texts:
        console.print(
            Text.assemble((f"  {name:10}", "dim"), on_one_line(text, _SHOWN_CHARS)), soft_wrap=True
        )
