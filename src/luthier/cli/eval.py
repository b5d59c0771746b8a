"""`luthier eval`: metrics of a model with their intervals, alone or against its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from luthier.cli.display import TrainScreen
from luthier.cli.terminal import Stopped, console, error_console, on_one_line

if TYPE_CHECKING:
    from luthier.evaluation.intervals import Estimate
    from luthier.recipes.evaluation_plan import EvaluationRequest
    from luthier.recipes.evaluation_result import Changed, Evaluation

_LINES = 10
"""Where there is no terminal, progress is told about this many times."""
_SHOWN_LEFT_OUT = 3
_SHOWN_CHARS = 300


def run(request: EvaluationRequest) -> None:
    """Evaluate a model and show what was found.

    Raises:
        LuthierError: Anything that the user can mend.
        Stopped: Ctrl-C.
    """
    from luthier.recipes.evaluate import evaluate
    from luthier.recipes.quiet import quiet_libraries

    quiet_libraries()
    try:
        with _Screen(console) as screen:
            evaluation = evaluate(request, screen)
    except KeyboardInterrupt:
        kept = "Stopped. The answers so far are kept: the same command goes on from them."
        error_console.print(f"\n{kept}", style="yellow")
        raise Stopped from None
    show(evaluation)


class _Screen(TrainScreen):
    """Tells how far it is in a file of the log too: answers may take hours."""

    def working(self, what: str, done: int, total: int) -> None:
        """Show a passing line on a terminal, and now and then a lasting one elsewhere."""
        super().working(what, done, total)
        is_due = done > 0 and done % max(1, total // _LINES) == 0
        if is_due and total > 1 and not console.is_terminal:
            self.say(f"{what}: {done:,} of {total:,}")


def show(evaluation: Evaluation) -> None:
    """Print the table, the rows that changed most, and what was left out."""
    console.print(results_table(evaluation))
    for row in evaluation.changed:
        _print_changed(row)
    if evaluation.left_out:
        console.print(
            f"[yellow]left out[/] {len(evaluation.left_out):,} of {evaluation.data['rows']:,} rows:"
        )
        for origin, why in evaluation.left_out[:_SHOWN_LEFT_OUT]:
            console.print(f"  {origin}: {why}", markup=False, soft_wrap=True)
        if len(evaluation.left_out) > _SHOWN_LEFT_OUT:
            console.print(f"  and {len(evaluation.left_out) - _SHOWN_LEFT_OUT:,} more", style="dim")
    for note in evaluation.notes:
        console.print(Text.assemble(("note  ", "yellow"), note), soft_wrap=True)
    for path in evaluation.files:
        console.print(f"written to {path}", style="dim", markup=False, soft_wrap=True)
    if not evaluation.files:
        console.print("Nothing was written: --out FOLDER keeps the results.", style="dim")


def results_table(evaluation: Evaluation) -> Table:
    """Return the metrics as a table: one model's, or base and tuned with their difference."""
    compared = evaluation.base is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    if compared:
        table.add_column("base", justify="right")
    table.add_column("tuned" if compared else "value", justify="right")
    table.add_column("difference" if compared else "95 % interval", justify="right")
    if compared:
        table.add_column("95 % interval", justify="right")
        table.add_column("better / worse / same", justify="right")
    table.add_column("rows", justify="right")
    for name, found in evaluation.metrics.items():
        cells = [name, _number(found.estimate.value)]
        if not compared:
            table.add_row(*cells, _interval(found.estimate), f"{found.estimate.num_rows:,}")
            continue
        cells.insert(1, "" if found.base is None else _number(found.base.value))
        difference = found.difference
        if difference is None:
            cells += ["", "", ""]
        else:
            cells += [
                f"{difference.estimate.value:+.4g}",
                _interval(difference.estimate, "+"),
                ""
                if difference.wins is None
                else f"{difference.wins} / {difference.losses} / {difference.ties}",
            ]
        table.add_row(*cells, f"{found.estimate.num_rows:,}")
    return table


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.3e}"


def _interval(found: Estimate, sign: str = "") -> str:
    if found.low is None or found.high is None:
        return "none"
    return f"{found.low:{sign}.4g} to {found.high:{sign}.4g}"


def _print_changed(row: Changed) -> None:
    console.print(
        Text.assemble(
            ("\n", ""),
            (row.origin, "cyan"),
            f"  {row.metric} {_number(row.base)} -> {_number(row.tuned)}",
        ),
        soft_wrap=True,
    )
    texts = [("prompt", row.prompt), ("reference", row.reference)]
    texts += [("base", row.base_answer), ("tuned", row.tuned_answer)]
    for name, text in texts:
        if text:
            console.print(
                Text.assemble((f"{name:10}", "dim"), on_one_line(text, _SHOWN_CHARS)),
                soft_wrap=True,
            )
