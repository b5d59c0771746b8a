"""The page of a learning-rate range test: its curve and what it suggests, in English and Chinese.

In: the record that `luthier lr-find` writes as JSON. Out: one HTML file that asks nothing of the
network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from luthier.report.charts import Figure, both, css, curves, line
from luthier.report.page import render_page
from luthier.report.words import Text, say

_POINT, _LINE, _MARK = "--c7", "--c1", "--c2"


def lr_page(record: Mapping[str, Any]) -> str:
    """Return the page of a range test.

    Args:
        record: What stands in its lr_find.json (`recipes/lr_find.py`).
    """
    facts = {"record": record, "verdict": verdict(record), "shown": shown}
    return render_page("lr_find.html.jinja", facts, {"chart": _figure(record)})


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


def _figure(record: Mapping[str, Any]) -> Figure:
    measured, smoothed = record["curve"], record["smoothed"]
    points = line(measured["learning_rate"], measured["loss"], say("lr_loss"), _POINT)
    points |= {"mode": "markers", "marker": {"color": css(_POINT), "size": 5}}
    curve = line(smoothed["learning_rate"], smoothed["loss"], say("lr_smoothed"), _LINE)
    chart = curves([points, curve], both(say("lr_rate")))
    layout = chart["layout"]
    layout["xaxis"] |= {"type": "log", "exponentformat": "power", "dtick": 1}
    layout["yaxis"] |= {"range": _loss_range(record), "title": {"text": both(say("lr_loss"))}}
    rate = record["suggestion"]
    if rate is not None:
        mark: dict[str, Any] = {"yref": "paper", "xref": "x"}
        dashed = {"color": css(_MARK), "dash": "dash"}
        layout["shapes"] = [
            mark | {"type": "line", "x0": rate, "x1": rate, "y0": 0, "y1": 1, "line": dashed}
        ]
        # On a logarithmic axis a line stands at the rate, and a text at the rate's logarithm.
        at = {"x": math.log10(rate), "y": 1.0, "xanchor": "left", "yanchor": "top"}
        words = {"text": shown(rate), "font": {"color": css(_MARK)}, "showarrow": False}
        layout["annotations"] = [mark | at | words]
    return chart


def _loss_range(record: Mapping[str, Any]) -> list[float] | None:
    """Return the losses to show: the valley with room above it, and not the heights behind it."""
    lines, points = list(record["smoothed"]["loss"]), list(record["curve"]["loss"])
    if not lines or record["start_loss"] is None:
        return None
    start, low = record["start_loss"], min(lines + points)
    room = max(start - low, 0.05 * abs(start))
    high = max(start, min(max(points), start + 1.5 * room))
    return [low - 0.1 * room, high + 0.1 * room]
