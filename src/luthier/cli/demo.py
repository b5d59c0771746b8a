"""`luthier demo`: before and after, side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from luthier.cli.curve import draw_curve
from luthier.cli.display import TrainScreen
from luthier.cli.terminal import console
from luthier.core.units import format_seconds, format_share

if TYPE_CHECKING:
    from luthier.recipes.demo import DemoResult

SHOWN = 8
"""Questions that are shown side by side; the rest are counted."""


def run(*, output_dir: str, model: str | None) -> None:
    """Run the demo and print what changed.

    Raises:
        LuthierError: The model can't be had, or training can't run.
    """
    from luthier.cli.summary import print_summary
    from luthier.core.exit_codes import STOPPED
    from luthier.engine.interrupt import StopSignals
    from luthier.engine.metrics_file import read_metrics
    from luthier.recipes.demo import DemoResult, run_demo
    from luthier.recipes.quiet import quiet_libraries
    from luthier.recipes.run_folder import METRICS

    quiet_libraries()
    with (
        TrainScreen(console) as screen,
        StopSignals(screen.signalled) as stop,
    ):
        result = run_demo(output_dir, model, screen, stop)
    if not isinstance(result, DemoResult):
        print_summary(console, result, [f"{output_dir}/run.yaml"])
        sys.exit(STOPPED)
    metrics = read_metrics(result.training.folder / METRICS)
    losses = [float(m["loss"]) for m in metrics if m["kind"] == "train"]
    console.print(f"\n[bold]Training loss[/] over {len(losses)} steps")
    for line in draw_curve(losses):
        console.print(line, style="cyan", highlight=False)
    console.print(_side_by_side(result))
    console.print(_scores(result))
    print_summary(console, result.training, [f"{output_dir}/run.yaml"])
    console.print(f"  before and after took {format_seconds(result.seconds)} in all")


def _side_by_side(result: DemoResult) -> Table:
    table = Table(title="Held-out questions, in words that no training row has", show_lines=True)
    for name in ("question", "before", "after"):
        table.add_column(name, ratio=1, overflow="fold")
    for index in _spread(len(result.questions), SHOWN):
        question = result.questions[index]
        cells = [
            Text(answer.strip(), style="green" if question.accepts(answer) else "red")
            for answer in (result.before[index], result.after[index])
        ]
        table.add_row(Text(question.text), *cells)
    return table


def _scores(result: DemoResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("right answers", "before", "after"):
        table.add_column(name, justify="left" if name == "right answers" else "right")
    for label, language in (("English", "en"), ("Chinese", "zh"), ("all", None)):
        table.add_row(
            label,
            *(
                f"{right} of {asked} ({format_share(right, asked)})"
                for right, asked in (
                    result.num_right(result.before, language),
                    result.num_right(result.after, language),
                )
            ),
        )
    return table


def _spread(count: int, wanted: int) -> Sequence[int]:
    step = max(1, count // wanted)
    return range(0, count, step)[:wanted]
