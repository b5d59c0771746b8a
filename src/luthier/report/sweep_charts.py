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
_GOOD, _BAD = "#2f6fdf", "#b4bac4"
"""Ends of the scale of the lines of all trials; plotly takes no colours of the page there."""

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
    results = [trial["value"] for trial in finished]
    axes = [
        _axis(name, values, [trial["params"][name] for trial in finished])
        for name, values in record["ranges"].items()
    ]
    lines = {
        "color": results,
        "colorscale": [[0, _GOOD], [1, _BAD]],
        "reversescale": record["direction"] == "maximize",
    }
    font = {"color": css("--soft")}
    trace = {
        "type": "parcoords",
        "line": lines,
        "dimensions": [*axes, {"label": html.escape(record["metric"]), "values": results}],
        "labelfont": font,
        "tickfont": font,
        # What is picked out on an axis is seen by its lines.
        "rangefont": {"color": "rgba(0,0,0,0)"},
    }
    layout = curves([], "")["layout"]
    layout |= {"margin": {"l": 72, "r": 48, "t": 56, "b": 20}}
    return {"data": [trace], "layout": layout}


def _axis(name: str, values: Any, drawn: Sequence[Any]) -> dict[str, Any]:
    """Return an axis of all trials: choices stand at 0, 1, 2, and numbers at their logarithm."""
    label = html.escape(name)
    if isinstance(values, list):
        places = {repr(value): place for place, value in enumerate(values)}
        texts = [json.dumps(value, ensure_ascii=False).strip('"') for value in values]
        return {
            "label": label,
            "values": [places[repr(value)] for value in drawn],
            "range": [-0.5, len(values) - 0.5],  # One choice alone would have no length.
            "tickvals": list(range(len(values))),
            "ticktext": [html.escape(text) for text in texts],
        }
    low, high = values["low"], values["high"]
    if not values["log"]:
        return {"label": label, "values": list(drawn), "range": [low, high]}
    ends = math.log10(low), math.log10(high)
    powers = range(math.ceil(ends[0]), math.floor(ends[1]) + 1)
    at = sorted({*ends, *map(float, powers)})
    return {
        "label": label,
        "values": [math.log10(value) for value in drawn],
        "range": list(ends),
        "tickvals": at,
        "ticktext": [f"{10**place:.3g}" for place in at],
    }


def _told(trial: Record) -> str:
    params = [f"{name} {setting}" for name, setting in trial["params"].items()]
    # plotly takes a few tags of HTML for what they are.
    return "<br>".join(
        html.escape(text) for text in (f"{trial['folder']}: {_value(trial):.5g}", *params)
    )


def _value(trial: Record) -> float:
    """Return what a trial came to; where it was stopped early, by its last validation."""
    return trial["value"] if trial["value"] is not None else trial["reported"][-1]
