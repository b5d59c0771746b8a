"""Charts as plotly takes them: plain values, so that drawing one loads no library.

Two kinds of values are filled in on the page (templates/charts.js): colours of the page, which are
others in the dark, and what its reader chooses, such as the language.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.report.words import Text

Figure = dict[str, Any]
Trace = dict[str, Any]

COLOURS = ("--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8")
"""Names of the page's colours for lines that are compared."""


def css(name: str) -> dict[str, str]:
    """Return a colour of the page, by its name."""
    return {"css": name}


def both(text: Text) -> Any:
    """Return words for a chart; plotly would take some of their signs for markup."""
    en, zh = html.escape(text.en, quote=False), html.escape(text.zh, quote=False)
    return en if en == zh else {"by": "language", "en": en, "zh": zh}


def line(
    xs: Any,
    ys: Sequence[float | None],
    name: Text,
    colour: str,
    *,
    is_faint: bool = False,
    has_points: bool = False,
    dash: str = "solid",
) -> Trace:
    """Return one curve.

    Args:
        xs: One value a point, or a choice of them.
        ys: None is a gap.
        name: In the legend.
        colour: Of the page, by name.
        is_faint: Behind another curve.
        has_points: Draw the points too.
        dash: As plotly names it.
    """
    return {
        "type": "scatter",
        "x": xs,
        "y": list(ys),
        # A line of one point would not be seen.
        "mode": "lines+markers" if has_points or len(ys) < 3 else "lines",
        "name": both(name),
        "line": {"color": css(colour), "width": 1.2 if is_faint else 2.2, "dash": dash},
        "marker": {"color": css(colour), "size": 7},
        "opacity": 0.55 if is_faint else 1,
    }


def curves(traces: Sequence[Trace], x_title: Any, *, is_log: bool = False) -> Figure:
    """Return a chart of curves.

    Args:
        traces: What `line` returned.
        x_title: Below the horizontal axis.
        is_log: Whether the vertical axis is logarithmic.
    """
    return {
        "data": list(traces),
        "layout": _layout()
        | {
            "hovermode": "x unified",
            "showlegend": len(traces) > 1,
            "xaxis": _axis() | {"title": {"text": x_title, "standoff": 8}},
            "yaxis": _axis() | ({"type": "log", "dtick": 1} if is_log else {}),
        },
    }


def bars(names: Sequence[Any], counts: Sequence[float], x_title: Any) -> Figure:
    """Return a chart of upright bars, such as a histogram."""
    trace = {"type": "bar", "x": list(names), "y": list(counts), "marker": {"color": css("--c1")}}
    layout = {
        "showlegend": False,
        "bargap": 0.15,
        "xaxis": _axis() | {"type": "category", "title": {"text": x_title, "standoff": 8}},
        "yaxis": _axis(),
    }
    return {"data": [trace], "layout": _layout() | layout}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar: its name, its length, what the pointer shows of it, its colour's name."""

    name: Text
    length: float
    label: str
    colour: str


def stacked_bar(parts: Sequence[Part]) -> Figure:
    """Return one horizontal bar of parts."""
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [part.length],
            "y": [""],
            "name": both(part.name),
            "marker": {"color": css(part.colour)},
            "hovertemplate": f"{html.escape(part.label)}<extra>%{{fullData.name}}</extra>",
        }
        for part in parts
    ]
    layout = {
        "barmode": "stack",
        "showlegend": False,
        "margin": {"l": 2, "r": 2, "t": 4, "b": 4},
        "xaxis": {"visible": False, "range": [0, sum(part.length for part in parts) or 1]},
        "yaxis": {"visible": False},
        "hovermode": "closest",
    }
    return {"data": traces, "layout": _layout() | layout}


def _layout() -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": css("--soft"), "family": "system-ui, sans-serif", "size": 12},
        "margin": {"l": 48, "r": 12, "t": 28, "b": 44},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        "hoverlabel": {
            "bgcolor": css("--paper"),
            "bordercolor": css("--line"),
            "font": {"color": css("--ink")},
        },
    }


def _axis() -> dict[str, Any]:
    grey: Mapping[str, Any] = css("--line")
    return {
        "gridcolor": grey,
        "zerolinecolor": grey,
        "linecolor": grey,
        "automargin": True,
        "nticks": 7,
        "exponentformat": "e",
    }
