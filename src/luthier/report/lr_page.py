"""The page of a learning-rate range test: its curve and what it suggests, in English and Chinese.

In: the record that `luthier lr-find` writes as JSON. Out: one HTML file that asks nothing of the
network: plotly's JavaScript is in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.core.errors import MissingExtraError
from luthier.report.words import Text, say

_POINT, _LINE, _MARK = "#8a94a6", "#2f6fdf", "#c2410c"
_GREY = "rgba(128,128,128,0.25)"


def lr_page(record: Mapping[str, Any]) -> str:
    """Return the page of a range test.

    Args:
        record: What stands in its lr_find.json (`recipes/lr_find.py`).

    Raises:
        MissingExtraError: plotly is not installed.
    """
    figure = Markup(_figure(record).replace("<", "\\u003c"))
    facts = {"record": record, "verdict": verdict(record), "figure": figure, "shown": shown}
    return _page().render(facts)


def verdict(record: Mapping[str, Any]) -> Text:
    """Return in a sentence or two how sure a suggestion is, or why there is none.

    Args:
        record: As `lr_page`.
    """
    values: dict[str, str] = {}
    if record["suggestion"] is not None:
        fall, noise, choices = record["fall"], record["noise"], record["choices"]
        pair = choices["minimum / 10"], choices["steepest"]
        times = fall / noise if noise else float("inf")
        values = {
            "fall": f"{fall:.3f}",
            "times": f"{times:,.0f}" if times < 1000 else "> 1,000",
            "spread": f"{max(pair) / min(pair):.1f}",
        }
    return say(f"lr_{record['verdict']}", **values)


def shown(rate: float) -> str:
    """Return a learning rate with two digits, as settings have it: `3.2e-4`, `0.05`."""
    if rate >= 0.01:
        return f"{rate:.2g}"
    digits, _, power = f"{rate:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _figure(record: Mapping[str, Any]) -> str:
    """Return the chart as JSON for plotly."""
    try:
        go: Any = import_module("plotly.graph_objects")
    except ImportError:
        raise MissingExtraError.of("plotly", "report", "the page of lr-find") from None
    measured, smoothed = record["curve"], record["smoothed"]
    chart = go.Figure()
    chart.add_scatter(
        x=measured["learning_rate"],
        y=measured["loss"],
        mode="markers",
        marker={"color": _POINT, "size": 5},
        name="loss 损失",
    )
    chart.add_scatter(
        x=smoothed["learning_rate"],
        y=smoothed["loss"],
        mode="lines",
        line={"color": _LINE, "width": 2.5},
        name="smoothed 平滑",
    )
    if record["suggestion"] is not None:
        chart.add_vline(x=record["suggestion"], line={"color": _MARK, "dash": "dash"})
        # On a logarithmic axis a line stands at the rate, and a text at the rate's logarithm.
        chart.add_annotation(
            x=math.log10(record["suggestion"]),
            y=1.0,
            yref="paper",
            yanchor="bottom",
            text=shown(record["suggestion"]),
            font={"color": _MARK},
            showarrow=False,
        )
    axis = {"gridcolor": _GREY, "zerolinecolor": _GREY}
    chart.update_layout(
        template=None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#808080", "family": "system-ui, sans-serif"},
        margin={"l": 56, "r": 16, "t": 40, "b": 56},
        legend={"orientation": "h", "y": 1.12},
        xaxis={"type": "log", "exponentformat": "power", "dtick": 1, **axis}
        | {"title": {"text": "learning rate 学习率"}},
        yaxis={"range": _loss_range(record), "title": {"text": "loss 损失"}, **axis},
    )
    return chart.to_json()


def _loss_range(record: Mapping[str, Any]) -> list[float] | None:
    """Return the losses to show: the valley with room above it, and not the heights behind it."""
    lines, points = list(record["smoothed"]["loss"]), list(record["curve"]["loss"])
    if not lines or record["start_loss"] is None:
        return None
    start, low = record["start_loss"], min(lines + points)
    room = max(start - low, 0.05 * abs(start))
    high = max(start, min(max(points), start + 1.5 * room))
    return [low - 0.1 * room, high + 0.1 * room]


@functools.cache
def _page() -> Any:
    offline: Any = import_module("plotly.offline")
    found = Environment(
        loader=PackageLoader("luthier.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = {
        "language": found.get_template("language.js").render(),
        "plotly": offline.get_plotlyjs(),
        "draw": found.get_template("lr_find.js").render(),
    }
    # The page lets these scripts run, and none else.
    hashes = {name: _digest(script) for name, script in scripts.items()}
    marked = {name: Markup(script) for name, script in scripts.items()}
    own = {"say": say, "scripts": marked, "hashes": hashes}
    return found.get_template("lr_find.html.jinja", globals=own)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
