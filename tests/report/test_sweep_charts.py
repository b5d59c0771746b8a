"""The charts of a sweep show each trial where it belongs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from luthier.report.sweep_charts import place, sweep_charts


def trial(
    number: int, value: float | None, state: str = "finished", **params: Any
) -> dict[str, Any]:
    given = {"learning_rate": 1e-4, "lora_rank": 16, "packing": True} | params
    return {
        "number": number,
        "folder": f"trial-{number:04d}",
        "params": given,
        "state": state,
        "value": value,
        "reported": [2.0, 1.75] if state == "pruned" else [],
    }


@pytest.fixture
def record() -> dict[str, Any]:
    """What sweep.json holds of a sweep's trials."""
    return {
        "metric": "eval_loss",
        "direction": "minimize",
        "ranges": {
            "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True, "step": None},
            "lora_rank": {"low": 8, "high": 64, "log": False, "step": None},
            "packing": [None, True, "<b>"],
        },
        "trials": [
            trial(0, 1.5),
            trial(1, 1.25, packing="<b>"),
            trial(2, None, "pruned"),
            trial(3, None, "failed"),
            trial(4, 1.75, packing=None, learning_rate=1e-5),
            trial(5, None, "running"),
        ],
        "importance": {"learning_rate": 0.75, "packing": 0.25},
    }


def test_the_history_has_the_best_so_far(record: dict[str, Any]) -> None:
    best, finished, pruned = sweep_charts(record)["history"]["data"]
    assert (finished["x"], finished["y"]) == ([0, 1, 4], [1.5, 1.25, 1.75])
    assert (best["x"], best["y"]) == ([0, 1, 4], [1.5, 1.25, 1.25])
    assert (pruned["x"], pruned["y"]) == ([2], [1.75])
    assert finished["text"][1].startswith("trial-0001: 1.25<br>learning_rate 0.0001<br>")
    assert "&lt;b&gt;" in finished["text"][1]
    upward = sweep_charts(record | {"direction": "maximize"})["history"]["data"][0]
    assert upward["y"] == [1.5, 1.5, 1.75]


def test_the_most_important_setting_is_the_upper_bar(record: dict[str, Any]) -> None:
    (bar,) = sweep_charts(record)["importance"]["data"]
    assert (bar["y"], bar["x"]) == (["packing", "learning_rate"], [0.25, 0.75])
    assert bar["orientation"] == "h"


def test_all_trials_stand_side_by_side_and_the_best_on_top(record: dict[str, Any]) -> None:
    chart = sweep_charts(record)["parallel"]
    assert [trace["name"] for trace in chart["data"]] == ["trial-0004", "trial-0000", "trial-0001"]
    worst, middle, best = chart["data"]
    assert worst["opacity"] < middle["opacity"] < best["opacity"] == 1
    assert chart["layout"]["xaxis"]["ticktext"] == [*record["ranges"], "eval_loss"]
    assert worst["y"] == pytest.approx([0, 8 / 56, 0, 1])
    assert best["y"] == pytest.approx([math.log(10) / math.log(200), 8 / 56, 1, 0])
    texts = [note["text"] for note in chart["layout"]["annotations"]]
    ends = ["1e-05", "0.002", "8", "64", "null", "true", "&lt;b&gt;", "1.25", "1.75"]
    assert texts == ends
    upward = sweep_charts(record | {"direction": "maximize"})["parallel"]
    assert upward["data"][-1]["name"] == "trial-0004"


@pytest.mark.parametrize(
    ("values", "value", "where"),
    [
        ([8, 16, 32], 16, 0.5),
        ([1, True], True, 1.0),
        (["alone"], "alone", 0.5),
        ({"low": 0, "high": 4, "log": False}, 1, 0.25),
        ({"low": 1e-4, "high": 1e-2, "log": True}, 1e-3, 0.5),
        ({"low": 2.0, "high": 2.0, "log": False}, 2.0, 0.5),
    ],
)
def test_where_a_value_stands(values: Any, value: Any, where: float) -> None:
    assert place(values, value) == pytest.approx(where)


def test_there_is_a_chart_for_what_there_is(record: dict[str, Any]) -> None:
    assert sweep_charts(record | {"trials": [], "importance": {}}) == {}
    one = record | {"trials": [trial(0, 1.5)], "importance": {}}
    assert list(sweep_charts(one)) == ["history"]
    json.dumps(sweep_charts(record), allow_nan=False)
