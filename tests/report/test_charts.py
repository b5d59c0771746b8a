"""Charts: plotly takes every one of them, with its words and colours filled in."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from luthier.report.charts import Part, bars, both, css, curves, line, stacked_bar
from luthier.report.words import Text

CHOICE = {"language": "zh", "axis": "step"}


def resolved(value: Any) -> Any:
    """Fill in what the page does (templates/charts.js)."""
    if isinstance(value, list):
        return [resolved(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "css" in value:
        return "#123456"
    if "by" in value:
        return resolved(value[CHOICE[value["by"]]])
    return {name: resolved(part) for name, part in value.items()}


LINES = [
    line([1, 2, 3], [0.5, None, 0.25], Text("loss", "损失"), "--c1"),
    line([3], [1.0], Text("validation", "验证"), "--c2", has_points=True, dash="dash"),
]
EVERY_CHART = {
    "curves": curves(LINES, both(Text("step", "步数"))),
    "logarithmic": curves(LINES[:1], "step", is_log=True),
    "bars": bars(["1–64", "> 64"], [3, 4], "tokens"),
    "stacked": stacked_bar([Part(Text("data", "数据"), 2.0, "2.0 s", "--c1")]),
}


@pytest.mark.parametrize("name", EVERY_CHART)
def test_plotly_knows_every_property(name: str) -> None:
    figure: Any = go.Figure(resolved(EVERY_CHART[name]))
    assert figure.to_dict()["data"]


def test_words_are_in_both_languages_and_no_markup() -> None:
    assert both(Text.same("a <b>bold</b> name")) == "a &lt;b&gt;bold&lt;/b&gt; name"
    assert both(Text("loss", "损失")) == {"by": "language", "en": "loss", "zh": "损失"}


def test_one_point_is_drawn_as_a_point() -> None:
    assert line([1], [2.0], Text.same("x"), "--c1")["mode"] == "lines+markers"
    assert line([1, 2, 3], [2.0, 1.0, 0.0], Text.same("x"), "--c1")["mode"] == "lines"


def test_colours_are_named_and_not_written_out() -> None:
    assert css("--c1") == {"css": "--c1"}
    assert EVERY_CHART["stacked"]["data"][0]["marker"] == {"color": {"css": "--c1"}}


def test_a_legend_is_for_more_than_one_curve() -> None:
    assert EVERY_CHART["curves"]["layout"]["showlegend"] is True
    assert EVERY_CHART["logarithmic"]["layout"]["showlegend"] is False
    assert EVERY_CHART["logarithmic"]["layout"]["yaxis"]["type"] == "log"


def test_a_bar_of_nothing_has_a_length() -> None:
    assert stacked_bar([])["layout"]["xaxis"]["range"] == [0, 1]
