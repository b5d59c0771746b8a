"""The comparison of runs as a page: their curves over each other, and tables side by side.

The horizontal axis is the reader's choice: steps, tokens or time; runs with batches of other sizes
are alike on one of them and not on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from luthier.report.charts import COLOURS, Figure, Trace, both, curves, line
from luthier.report.comparison import metrics_table, results_table, settings_table
from luthier.report.curves import (
    Record,
    at_steps,
    clock,
    column,
    has,
    smoothed,
    thinned,
    tokens,
)
from luthier.report.page import render_page
from luthier.report.reported_run import ReportedRun, summary
from luthier.report.run_charts import Chart
from luthier.report.words import Text, number, say

AXES = ("step", "tokens", "minutes")
_SMOOTHED = ("loss", "grad_norm", "tokens_per_second")


def compare_page(runs: Sequence[ReportedRun]) -> str:
    """Return the page that compares runs."""
    charts = [chart for chart in _charts(runs) if chart.figure["data"]]
    facts = {
        "title": say("compare_title", num=number(len(runs))),
        "runs": [
            {"run": run, "summary": summary(run), "colour": colour}
            for run, colour in zip(runs, cycle(COLOURS), strict=False)
        ],
        "axes": [(axis, say(f"run_x_{axis}")) for axis in AXES],
        "charts": charts,
        "settings": settings_table(runs),
        "metrics": metrics_table(runs),
        "results": results_table(runs),
    }
    return render_page("compare.html.jinja", facts, {chart.id: chart.figure for chart in charts})


def _charts(runs: Sequence[ReportedRun]) -> list[Chart]:
    loss = [trace for run, colour in _coloured(runs) for trace in _losses(run, colour)]
    found = [Chart("loss", say("run_loss"), _figure(loss), 24, is_wide=True)]
    for name, title in (
        ("eval_rewards/accuracies", "run_ranked"),
        ("eval_reward", "run_reward"),
    ):
        traces = [_validation(run, name, colour) for run, colour in _coloured(runs)]
        known = [trace for trace in traces if trace["y"]]
        found.append(Chart(name.replace("/", "-"), say(title), _figure(known)))
    for name, title in (
        ("learning_rate", "run_lr"),
        ("grad_norm", "run_grad"),
        ("tokens_per_second", "run_tokens_per_second"),
    ):
        traces = [
            _training(run, name, colour) for run, colour in _coloured(runs) if has(run.train, name)
        ]
        found.append(Chart(name, say(title), _figure(traces)))
    return found


def _coloured(runs: Sequence[ReportedRun]) -> list[tuple[ReportedRun, str]]:
    return list(zip(runs, cycle(COLOURS), strict=False))


def _figure(traces: Sequence[Trace]) -> Figure:
    title = {axis: both(say(f"run_x_{axis}")) for axis in AXES}
    found = curves(traces, {"by": "axis", **title})
    found["layout"]["showlegend"] = True  # Also where only one of the runs has it.
    return found


def _losses(run: ReportedRun, colour: str) -> list[Trace]:
    found = [_training(run, "loss", colour)] if has(run.train, "loss") else []
    if has(run.evals, "eval_loss"):
        found.append(_validation(run, "eval_loss", colour))
    return found


def _training(run: ReportedRun, name: str, colour: str) -> Trace:
    values = column(run.train, name)
    mean = smoothed(values) if name in _SMOOTHED else []
    at, shown = thinned(range(len(values)), mean or values)
    return line(_axes(run.train, run.train, at), shown, Text.same(run.name), colour)


def _validation(run: ReportedRun, name: str, colour: str) -> Trace:
    records = [record for record in run.evals if name in record]
    at, shown = thinned(range(len(records)), column(records, name))
    title = Text.same(f"{run.name}, ") + say("validation")
    xs = _axes(records, run.train, at)
    return line(xs, shown, title, colour, has_points=True, dash="dash")


def _axes(records: Sequence[Record], train: Sequence[Record], at: Sequence[int]) -> dict[str, Any]:
    """Return where some of the records lie on each axis, known from those of training."""
    steps = [int(record["step"]) for record in train]
    minutes = [seconds / 60 for seconds in clock(train)]
    found = {
        "step": [record["step"] for record in records],
        "tokens": at_steps(records, steps, tokens(train)),
        "minutes": at_steps(records, steps, minutes),
    }
    return {"by": "axis"} | {name: [values[i] for i in at] for name, values in found.items()}
