"""The charts of a sweep: its history, the importance of settings, and all trials side by side.

In: what stands in sweep.json. Out: figures as plotly's JavaScript takes them, by name.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from typing import Any

from luthier.core.errors import MissingExtraError

_POINT, _LINE, _MARK = "#2f6fdf", "#c2410c", "#8a94a6"
_GREY = "rgba(128,128,128,0.25)"
_FONT = {"color": "#808080", "family": "system-ui, sans-serif"}

Record = Mapping[str, Any]


def sweep_charts(record: Record) -> dict[str, Any]:
    """Return the charts that there is something to draw in: history, importance, parallel.

    Args:
        record: What stands in sweep.json.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        go: Any = import_module("plotly.graph_objects")
    except ImportError:
        raise MissingExtraError.of("plotly", "report", "the page of a sweep") from None
    finished = [trial for trial in record["trials"] if trial["state"] == "finished"]
    charts: dict[str, Any] = {}
    if finished:
        charts["history"] = _history(go, record, finished)
    if record["importance"]:
        charts["importance"] = _importance(go, record)
    if len(finished) > 1:
        charts["parallel"] = _parallel(go, record, finished)
    return {name: json.loads(chart.to_json()) for name, chart in charts.items()}


def _history(go: Any, record: Record, finished: Sequence[Record]) -> Any:
    better = min if record["direction"] == "minimize" else max
    pruned = [t for t in record["trials"] if t["state"] == "pruned" and t["reported"]]
    numbers = [trial["number"] for trial in finished]
    chart = go.Figure()
    chart.add_scatter(
        x=numbers,
        y=[trial["value"] for trial in finished],
        mode="markers",
        marker={"color": _POINT, "size": 8},
        name="finished 完成",
        text=[_told(trial) for trial in finished],
        hovertemplate="%{text}<extra></extra>",
    )
    if pruned:
        chart.add_scatter(
            x=[trial["number"] for trial in pruned],
            y=[trial["reported"][-1] for trial in pruned],
            mode="markers",
            marker={"color": _MARK, "size": 8, "symbol": "x"},
            name="stopped early 提前停止",
            text=[_told(trial) for trial in pruned],
            hovertemplate="%{text}<extra></extra>",
        )
    chart.add_scatter(
        x=numbers,
        y=list(accumulate((trial["value"] for trial in finished), better)),
        mode="lines",
        line={"color": _LINE, "width": 2, "shape": "hv"},
        name="best so far 当前最佳",
    )
    x_axis = {"title": {"text": "trial 试验"}, "dtick": max(1, len(record["trials"]) // 8)}
    return _laid_out(chart, x_axis, {"title": {"text": record["metric"]}})


def _importance(go: Any, record: Record) -> Any:
    names = list(record["importance"])[::-1]  # The first bar is drawn at the bottom.
    chart = go.Figure()
    chart.add_bar(
        x=[record["importance"][name] for name in names],
        y=names,
        orientation="h",
        marker={"color": _POINT},
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    )
    _laid_out(chart, {"range": [0, 1], "tickformat": ".0%"}, {"automargin": True})
    return chart.update_layout(showlegend=False, margin={"t": 12})


def _parallel(go: Any, record: Record, finished: Sequence[Record]) -> Any:
    axes = [
        _axis(name, values, [trial["params"][name] for trial in finished])
        for name, values in record["ranges"].items()
    ]
    results = [trial["value"] for trial in finished]
    axes.append({"label": record["metric"], "values": results})
    chart = go.Figure()
    line = {"color": results, "colorscale": "Viridis", "showscale": False}
    # Bright is good, whichever way the metric runs.
    line["reversescale"] = record["direction"] == "minimize"
    chart.add_parcoords(
        line=line,
        dimensions=axes,
        labelfont=_FONT | {"size": 12},
        tickfont=_FONT | {"size": 11},
        rangefont={"color": "rgba(0,0,0,0)"},
    )
    return _laid_out(chart, {}, {}).update_layout(margin={"l": 64, "r": 48, "t": 64, "b": 24})


def _axis(name: str, values: Any, drawn: Sequence[Any]) -> dict[str, Any]:
    """Return an axis of the parallel coordinates; choices stand at 0, 1, 2, logarithms at theirs."""
    if isinstance(values, list):
        places = {repr(value): place for place, value in enumerate(values)}
        texts = [json.dumps(value, ensure_ascii=False).strip('"') for value in values]
        ticks = {"tickvals": list(range(len(values))), "ticktext": texts}
        # One choice alone would stand on an axis without length.
        span = {"range": [-0.5, len(values) - 0.5]}
        return {"label": name, "values": [places[repr(v)] for v in drawn]} | ticks | span
    low, high = values["low"], values["high"]
    if not values["log"]:
        return {"label": name, "values": list(drawn), "range": [low, high]}
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    at = sorted({math.log10(low), *map(float, powers), math.log10(high)})
    return {
        "label": name,
        "values": [math.log10(value) for value in drawn],
        "range": [math.log10(low), math.log10(high)],
        "tickvals": at,
        "ticktext": [f"{10**place:.3g}" for place in at],
    }


def _told(trial: Record) -> str:
    value = trial["value"] if trial["value"] is not None else trial["reported"][-1]
    params = [f"{name} {setting}" for name, setting in trial["params"].items()]
    # plotly takes a few tags of HTML for what they are.
    return "<br>".join(html.escape(line) for line in (f"{trial['folder']}: {value:.5g}", *params))


def _laid_out(chart: Any, x_axis: Mapping[str, Any], y_axis: Mapping[str, Any]) -> Any:
    axis = {"gridcolor": _GREY, "zerolinecolor": _GREY}
    return chart.update_layout(
        template=None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font=_FONT,
        margin={"l": 56, "r": 16, "t": 40, "b": 56},
        legend={"orientation": "h", "y": 1.12},
        xaxis=axis | dict(x_axis),
        yaxis=axis | dict(y_axis),
    )
