"""The page of a sweep: what was best, every trial, and what to do next."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from headless_chromium import find_chromium, running_chromium
from luthier.report.sweep_page import commands, counts, headline, shown, sweep_page
from luthier.report.words import say


def trial(number: int, value: float | None, state: str, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "folder": f"trial-{number:04d}",
        "params": {"learning_rate": 1e-4 * (number + 1), "lora_target": "<script>"},
        "state": state,
        "value": value,
        "reported": [1.75] if state == "pruned" else [],
        "step": 40 + number,
        "seconds": 61.0,
        "cause": "",
    } | more


@pytest.fixture
def record() -> dict[str, Any]:
    """What sweep.json holds."""
    return {
        "kind": "luthier sweep",
        "luthier": "0.1.0",
        "started": "2026-11-24T10:00:00+00:00",
        "written": "2026-11-24T11:00:00+00:00",
        "command": ["luthier", "sweep", "my sweep.yaml", "--overwrite_output_dir"],
        "output_dir": "out/my sweep",
        "num_trials": 20,
        "metric": "eval_loss",
        "direction": "minimize",
        "ranges": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True, "step": None},
            "lora_target": ["<script>", "all"],
        },
        "trials": [
            trial(0, 1.5, "finished"),
            trial(1, 1.25, "finished"),
            trial(2, None, "pruned"),
            trial(3, None, "failed", cause="no <memory>"),
            trial(4, None, "running"),
        ],
        "best": 1,
        "importance": {"learning_rate": 1.0, "lora_target": 0.0},
    }


def words(html: str) -> str:
    """Return the text of a page without its scripts and styles."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


def test_the_page_shows_every_trial(record: dict[str, Any]) -> None:
    text = words(sweep_page(record))
    assert "Best eval_loss: 1.25 (trial-0001)" in text
    assert "最佳 eval_loss：1.25（trial-0001）" in text
    for one in record["trials"]:
        assert one["folder"] in text
    assert "no <memory>" in text
    assert "stopped early" in text
    assert "提前停止" in text
    assert "1 min 01 s" in text
    assert "luthier train 'out/my sweep/best.yaml'" in text


def test_what_a_setting_holds_is_text(record: dict[str, Any]) -> None:
    html = sweep_page(record)
    assert ">&lt;script&gt;<" in html
    assert html.count("<script>") == 3  # The language, plotly, the charts.


def test_each_chart_has_its_place_and_its_figure(record: dict[str, Any]) -> None:
    html = sweep_page(record)
    for name in ("history", "importance", "parallel"):
        assert f'class="chart" id="{name}"' in html
        assert f'id="figure-{name}"' in html


def test_a_sweep_that_has_only_begun_has_a_page(record: dict[str, Any]) -> None:
    begun = record | {"trials": record["trials"][4:], "best": None, "importance": {}}
    html = sweep_page(begun)
    assert "No trial has finished yet" in html
    assert "Plotly" not in html


def test_what_it_came_to(record: dict[str, Any]) -> None:
    assert headline(record).en == "Best eval_loss: 1.25 (trial-0001)"
    assert headline(record | {"best": None}) == say("sweep_no_best")
    assert counts(record).en == ("20 trials: 2 finished, 1 stopped early, 1 failed, 1 under way.")


def test_the_commands_can_be_copied(record: dict[str, Any]) -> None:
    assert [command for _, command in commands(record)] == [
        "luthier train 'out/my sweep/best.yaml'",
        "luthier chat 'out/my sweep/trial-0001'",
        "luthier sweep 'my sweep.yaml' --resume_from_checkpoint",
    ]
    resumed = record | {"command": ["luthier", "sweep", "s.yaml", "--resume_from_checkpoint"]}
    (last,) = commands(resumed | {"best": None})
    assert last[1] == "luthier sweep s.yaml --resume_from_checkpoint"


@pytest.mark.parametrize("state", ["finished", "pruned", "failed", "running"])
def test_every_end_has_words(state: str) -> None:
    assert re.search("[\u4e00-\u9fff]", say(f"sweep_is_{state}").zh)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "true"), (1.23456, "1.235"), (3e-5, "3e-05"), (16, "16"), ("all", "all")],
)
def test_a_value_is_written_as_in_a_table(value: Any, text: str) -> None:
    assert shown(value) == text


def test_all_is_drawn_in_a_browser_without_a_network(
    record: dict[str, Any], tmp_path: Path
) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    path = tmp_path / "sweep.html"
    path.write_text(sweep_page(record), encoding="utf-8")
    undrawn = """[...document.querySelectorAll('.chart')]
        .filter(chart => !chart.querySelector('.main-svg')).map(chart => chart.id)"""
    with running_chromium(program, tmp_path / "profile") as browser:
        for width, scheme in ((1280, "light"), (360, "dark")):
            browser.open(path, width=width, scheme=scheme)
            assert browser.complaints == []
            assert browser.requests == [path.as_uri()]
            assert browser.value("document.querySelectorAll('.chart').length") == 3
            assert browser.value(undrawn) == []
            assert browser.value("document.querySelectorAll('#parallel .trace').length") == 2
            assert browser.value("document.documentElement.scrollWidth") == width
