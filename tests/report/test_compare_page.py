"""The page that compares runs: curves on three axes, and the tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from luthier.report.compare_page import compare_page
from luthier.report.reported_run import ReportedRun


def figures(html: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="figure-([^"]+)">(.*?)</script>', html)
    return {name: json.loads(text) for name, text in found}


def test_curves_lie_over_each_other_on_three_axes(reported: ReportedRun) -> None:
    html = compare_page([reported, replace(reported, name="<b>other</b>")])
    found = figures(html)
    assert list(found) == ["loss", "learning_rate", "grad_norm", "tokens_per_second"]
    training, validation, *_ = found["loss"]["data"]
    assert training["x"]["step"] == list(range(1, 21))
    assert training["x"]["tokens"][-1] == pytest.approx(40_000)
    assert training["x"]["minutes"][-1] == pytest.approx(40 / 60)
    assert validation["x"]["step"] == [0, 10, 20]
    assert validation["x"]["tokens"] == pytest.approx([0, 20_000, 40_000])
    assert found["loss"]["layout"]["xaxis"]["title"]["text"]["by"] == "axis"
    assert [trace["line"]["color"]["css"] for trace in found["loss"]["data"]] == [
        *("--c1", "--c1", "--c2", "--c2")
    ]
    assert "<b>other" not in html
    assert found["learning_rate"]["data"][1]["name"] == "&lt;b&gt;other&lt;/b&gt;"


def test_rewards_are_drawn_for_the_runs_that_have_them(reported: ReportedRun) -> None:
    evals = [{"step": 20, "eval_rewards/accuracies": 0.5}]
    found = figures(compare_page([reported, replace(reported, name="dpo", evals=evals)]))
    (trace,) = found["eval_rewards-accuracies"]["data"]
    assert trace["name"]["en"] == "dpo, validation"
    assert found["eval_rewards-accuracies"]["layout"]["showlegend"] is True


def test_runs_without_steps_have_tables_alone() -> None:
    bare = ReportedRun(name="bare", folder="bare", state="running")
    html = compare_page([bare, bare])
    assert figures(html) == {}
    assert "No step is logged yet." in html
    assert "All settings that they both have are the same" in html
    assert "None of the runs has been evaluated yet" in html
