"""The charts of a sweep: its history, the importance of settings, and all trials side by side.

In: what stands in sweep.json. Out: figures, by the ids that the page gives them.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from luthier.report.charts import Figure, bars, both, css, curves, line
from luthier.report.words import Text, say

_FINISHED, _BEST, _PRUNED = "--c1", "--c2", "--c7"

Record = Mapping[str, Any]


def sweep_charts(record: Record) -> dict[str, Figure]:
    """Return the charts that there is something to draw in: history, importance, parallel.

    Args:
        record: What stands in sweep.json.
    """
    finished = [trial for trial in record["trials"] if trial["state"] == "finished"]
    charts: dict[str, Figure] = {}
    if finished:
        charts["history"] = _history(record, finished)
    if record["importance"]:
        charts["importance"] = _importance(record["importance"])
    if len(finished) > 1:
        charts["parallel"] = _parallel(record, finished)
    return charts


def _history(record: Record, finished: Sequence[Record]) -> Figure:
    better = min if record["direction"] == "minimize" else max
    pruned = [t for t in record["trials"] if t["state"] == "pruned" and t["reported"]]
    numbers = [trial["number"] for trial in finished]
    best = list(accumulate((trial["value"] for trial in finished), better))
    traces = [
        line(numbers, best, say("sweep_best_so_far"), _BEST),
        _points(finished, say("sweep_is_finished"), _FINISHED, "circle"),
    ]
    traces[0]["line"]["shape"] = "hv"
    if pruned:
        traces.append(_points(pruned, say("sweep_is_pruned"), _PRUNED, "x"))
    chart = curves(traces, both(say("sweep_trial")))
    chart["layout"]["hovermode"] = "closest"
    # A trial is a whole number.
    chart["layout"]["xaxis"]["dtick"] = max(1, len(record["trials"]) // 8)
    chart["layout"]["yaxis"]["title"] = {"text": both(Text.same(record["metric"]))}
    return chart


def _points(trials: Sequence[Record], name: Text, colour: str, symbol: str) -> dict[str, Any]:
    values = [_value(trial) for trial in trials]
    return line([trial["number"] for trial in trials], values, name, colour) | {
        "mode": "markers",
        "marker": {"color": css(colour), "size": 8, "symbol": symbol},
        "text": [_told(trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _importance(shares: Mapping[str, float]) -> Figure:
    names = list(shares)[::-1]  # The first bar is drawn at the bottom.
    chart = bars(names, [shares[name] for name in names], "")
    (trace,) = chart["data"]
    trace |= {"x": trace["y"], "y": trace["x"], "orientation": "h"}
    trace["hovertemplate"] = "%{y}: %{x:.0%}<extra></extra>"
    axis = chart["layout"]["yaxis"]
    chart["layout"] |= {
        "xaxis": axis | {"range": [0, 1], "tickformat": ".0%"},
        "yaxis": axis | {"type": "category"},
    }
    return chart


def _parallel(record: Record, finished: Sequence[Record]) -> Figure:
    """Return a line a trial over an upright axis a setting, the last one for the metric.

    Drawn of plain lines: plotly's own parallel coordinates need WebGL, which not every browser has.
    """
    results = [trial["value"] for trial in finished]
    span: Any = {"low": min(results), "high": max(results), "log": False}
    axes = [*record["ranges"].items(), (record["metric"], span)]
    is_better_low = record["direction"] == "minimize"
    ranked = sorted(finished, key=lambda trial: trial["value"], reverse=is_better_low)
    traces = [
        _strand(trial, axes, record["metric"], at / (len(ranked) - 1))
        for at, trial in enumerate(ranked)
    ]
    chart = curves(traces, "")
    ticks = {"tickvals": list(range(len(axes))), "ticktext": [html.escape(n) for n, _ in axes]}
    chart["layout"] |= {
        "hovermode": "closest",
        "showlegend": False,
        "annotations": [
            note for at, (_, values) in enumerate(axes) for note in _end_notes(at, values)
        ],
    }
    chart["layout"]["xaxis"] |= ticks | {"range": [-0.2, len(axes) - 0.4], "zeroline": False}
    chart["layout"]["yaxis"] |= {"visible": False, "range": [-0.06, 1.06]}
    return chart


def _strand(
    trial: Record, axes: Sequence[tuple[str, Any]], metric: str, goodness: float
) -> dict[str, Any]:
    given = {**trial["params"], metric: trial["value"]}
    places = [place(values, given[name]) for name, values in axes]
    name = Text.same(trial["folder"])
    return line(list(range(len(axes))), places, name, _BEST if goodness == 1 else _FINISHED) | {
        "mode": "lines",
        "opacity": 1 if goodness == 1 else 0.1 + 0.6 * goodness**2,
        "text": [_told(trial)] * len(axes),
        "hovertemplate": "%{text}<extra></extra>",
    }


def place(values: Any, value: Any) -> float:
    """Return where a value stands on its axis, from 0 at the foot to 1.

    Args:
        values: A list of choices, or a range.
        value: One of them.
    """
    if isinstance(values, list):
        at = [repr(choice) for choice in values].index(repr(value))
        return at / (len(values) - 1) if len(values) > 1 else 0.5
    low, high = values["low"], values["high"]
    if values["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


def _end_notes(at: int, values: Any) -> list[dict[str, Any]]:
    """Return the words beside an axis: every choice, or both ends of a range."""
    known = values if isinstance(values, list) else [values["low"], values["high"]]
    return [
        {
            "x": at,
            "y": place(values, value),
            "text": html.escape(f"{value:.4g}" if isinstance(value, float) else _word(value)),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 4,
            "bgcolor": css("--paper"),
            "font": {"size": 11, "color": css("--ink")},
        }
        for value in known
    ]


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).strip('"')


def _told(trial: Record) -> str:
    params = [f"{name} {setting}" for name, setting in trial["params"].items()]
    # plotly takes a few tags of HTML for what they are.
    return "<br>".join(
        html.escape(text) for text in (f"{trial['folder']}: {_value(trial):.5g}", *params)
    )


def _value(trial: Record) -> float:
    """Return what a trial came to; where it was stopped early, by its last validation."""
    return trial["value"] if trial["value"] is not None else trial["reported"][-1]
