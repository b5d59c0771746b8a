"""The charts of a run's page, by the ids under which the page draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.units import GIB
from luthier.report.charts import (
    COLOURS,
    Figure,
    Part,
    Trace,
    bars,
    both,
    curves,
    line,
    stacked_bar,
)
from luthier.report.curves import Record, column, has, smoothed, thinned
from luthier.report.reported_run import ReportedRun, named_parts
from luthier.report.run_tables import length_bars, metric_text
from luthier.report.words import Text, name_of, say

_RAW, _SMOOTH, _VAL = "--c7", "--c1", "--c2"
_WIDE_SPREAD = 30.0
"""Gradient norms further apart than this are drawn on a logarithmic axis."""

_REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins")
_SHARES = ("rewards/accuracies", "reward", "kl")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the page: where it is drawn, what it is called, how high it is, in rem."""

    id: str
    title: Text
    figure: Figure
    height: float = 15
    is_wide: bool = False


def run_charts(run: ReportedRun) -> list[Chart]:
    """Return the curves of a run, those first that are looked at first."""
    found = [_loss(run)]
    for name, title, scale in (
        ("learning_rate", "run_lr", 1.0),
        ("grad_norm", "run_grad", 1.0),
        ("tokens_per_second", "run_tokens_per_second", 1.0),
        ("memory_bytes", "run_memory_gib", 1 / GIB),
    ):
        if has(run.train, name):
            found.append(_of_training(run.train, name, say(title), scale))
    found += _rewards(run)
    return [chart for chart in found if chart is not None]


def length_chart(run: ReportedRun) -> Chart | None:
    """Return the histogram of the training rows' lengths; None where it is not recorded."""
    found = length_bars(run.manifest)
    if found is None:
        return None
    return Chart("lengths", say("run_lengths"), bars(*found, _word("tokens")), is_wide=True)


def time_chart(run: ReportedRun) -> Chart | None:
    """Return the bar of where the time went; None where no time is recorded."""
    parts = [
        Part(
            part.name,
            part.seconds,
            f"{metric_text('seconds', part.seconds)}, {part.share}",
            part.colour,
        )
        for part in named_parts(run)
    ]
    return Chart("time", say("run_time"), stacked_bar(parts), 3.5) if parts else None


def _loss(run: ReportedRun) -> Chart | None:
    traces = _raw_and_smooth(run.train, "loss")
    if has(run.evals, "eval_loss"):
        traces.append(_validation(run.evals, "eval_loss"))
    if not traces:
        return None
    return Chart("loss", say("run_loss"), curves(traces, _word("run_x_step")), 22, is_wide=True)


def _raw_and_smooth(records: Sequence[Record], name: str, scale: float = 1.0) -> list[Trace]:
    if not has(records, name):
        return []
    steps = [record["step"] for record in records]
    raw = [None if y is None else y * scale for y in column(records, name)]
    mean = smoothed(raw)
    traces = [
        line(*thinned(steps, raw), say("run_raw"), _RAW if mean else _SMOOTH, is_faint=bool(mean))
    ]
    if mean:
        traces.append(line(*thinned(steps, mean), say("run_smoothed"), _SMOOTH))
    return traces


def _validation(records: Sequence[Record], name: str) -> Trace:
    steps = [record["step"] for record in records]
    points = thinned(steps, column(records, name))
    return line(*points, say("validation"), _VAL, has_points=True)


def _of_training(records: Sequence[Record], name: str, title: Text, scale: float) -> Chart:
    is_smoothed = name in ("grad_norm", "tokens_per_second")
    if is_smoothed:
        traces = _raw_and_smooth(records, name, scale)
    else:
        steps = [record["step"] for record in records]
        values = [None if y is None else y * scale for y in column(records, name)]
        traces = [line(*thinned(steps, values), title, _SMOOTH)]
    known = [y for y in column(records, name) if y]
    is_log = name == "grad_norm" and min(known, default=1) > 0
    is_log = is_log and max(known, default=1) / min(known, default=1) > _WIDE_SPREAD
    return Chart(name, title, curves(traces, _word("run_x_step"), is_log=is_log))


def _rewards(run: ReportedRun) -> list[Chart]:
    found: list[Chart] = []
    judges = [name for name in (run.train[-1] if run.train else ()) if _is_of_judge(name)]
    names = [name for name in (*_REWARDS, *judges) if has(run.train, name)]
    if names:
        traces = [
            line(
                *thinned([r["step"] for r in run.train], column(run.train, name)),
                name_of("metrics", name),
                colour,
            )
            for name, colour in zip(names, COLOURS, strict=False)
        ]
        found.append(Chart("rewards", say("run_rewards"), curves(traces, _word("run_x_step"))))
    for name in _SHARES:
        traces = _raw_and_smooth(run.train, name)
        if has(run.evals, f"eval_{name}"):
            traces.append(_validation(run.evals, f"eval_{name}"))
        if traces:
            title = say("run_gauge", name=name_of("metrics", name))
            chart_id = name.replace("/", "-")
            found.append(Chart(chart_id, title, curves(traces, _word("run_x_step"))))
    return found


def _is_of_judge(name: str) -> bool:
    return name.startswith("rewards/") and name.endswith("/mean")


def _word(label: str) -> Any:
    return both(say(label))


def num_not_finite(records: Sequence[Record]) -> int:
    """Return how many logged values of training were no numbers: JSON has null for them."""
    return sum(
        found is None or (isinstance(found, float) and not math.isfinite(found))
        for record in records
        for found in record.values()
    )
