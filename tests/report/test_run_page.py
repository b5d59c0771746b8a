"""The report of a run: whole, of runs that have little to tell, and of data that means harm."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from luthier.report.reported_run import ReportedRun
from luthier.report.run_page import commands, run_page

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
BARE = ReportedRun(name="bare", folder="bare", state="broken off")


def body(run: ReportedRun) -> str:
    """Return the page without its scripts: plotly's is 5 MB."""
    return re.sub(r"<script[^>]*>.*?</script>", "", run_page(run), flags=re.DOTALL)


def figures(run: ReportedRun) -> dict[str, Any]:
    found = re.findall(
        r'<script type="application/json" id="figure-([^"]+)">(.*?)</script>', run_page(run)
    )
    return {name: json.loads(text) for name, text in found}


def test_the_sections_stand_in_their_order(reported: ReportedRun) -> None:
    assert re.findall(r'<section id="(\w+)"', body(reported)) == [
        *("curves", "data", "rows", "samples", "evaluations", "events", "where", "manifest"),
        "commands",
    ]


def test_it_says_what_the_run_was(reported: ReportedRun) -> None:
    html = body(reported)
    for words in (
        "Supervised fine-tuning of tiny by LoRA adapters, on rows.json (100 rows).",
        "3.000 → 2.500",
        "finished",
        "the gradient is 40 long",
        "rows.json:7",
        "flash_attn: fa2 -&gt; sdpa (no GPU)",
        "Answer of step 10",
        "0.35 … 0.45",
        "torn.json can&#39;t be read.",
        "luthier train &#39;my run.yaml&#39;",
        "2026-11-24 10:02 UTC",
        '<span class="l0" title="0.25">there</span>',
        "English",
        "验证损失",
    ):
        assert words in html, words
    assert "rows.json:8" not in html, "only the first rows of an event are named"


def test_every_chart_has_its_figure(reported: ReportedRun) -> None:
    drawn = re.findall(r'class="chart" id="([^"]+)"', body(reported))
    assert sorted(drawn) == sorted(figures(reported))
    assert {"loss", "lengths", "time"} <= set(drawn)


def test_what_the_data_says_is_text_and_never_run(reported: ReportedRun) -> None:
    pieces = [{"text": EVIL, "taught": True, "before": 1.0, "after": 1.0}]
    shown = {"step": 1, "has_before": True, "rows": [{"origin": EVIL, "pieces": pieces}]}
    run = replace(
        reported,
        name=EVIL,
        settings={EVIL: EVIL, "model_name_or_path": EVIL},
        manifest={"command": [EVIL], "packages": {EVIL: EVIL}, "model": {"name": EVIL}},
        samples=[{"step": 1, "prompt": EVIL, "answer": EVIL}],
        events=[{"kind": EVIL, "step": 1, "message": EVIL, "rows": [{"origin": EVIL}]}],
        results={EVIL: {"name": EVIL, "metrics": {EVIL: {"value": 1.0}}}},
        train=[{"step": 1, f"rewards/{EVIL}/mean": 1.0}],
        shown_rows=shown,
    )
    html = run_page(run)
    assert "<script>alert" not in html
    assert (
        "<img" not in html.partition("<script>")[2].rpartition("</main>")[0].partition("<main>")[2]
    )
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 15
    assert figures(run)["rewards"]["data"][0]["name"].startswith("rewards/&lt;/script&gt;")


def test_a_run_that_was_killed_at_once() -> None:
    html = body(BARE)
    assert "broken off" in html
    assert "No step is logged yet." in html
    assert "The run has no manifest" in html
    assert "No times are recorded." in html
    assert "luthier train bare/run.yaml --resume_from_checkpoint" in html
    # Nothing to draw: the page does without plotly.
    assert len(run_page(BARE)) < 100_000


def test_a_run_without_validation_says_so(reported: ReportedRun) -> None:
    assert "The run has no validation rows" in body(replace(reported, evals=()))
    assert "The run has no validation rows" not in body(reported)


def test_notes_on_the_curves(reported: ReportedRun) -> None:
    train = [{"step": step, "loss": 1.0} for step in range(1, 2502)]
    html = body(replace(reported, train=[*train, {"step": 2502, "loss": None}]))
    assert "Of 2,502 logged steps" in html
    assert "no numbers (NaN or infinite): 1." in html


def test_many_events_are_cut(reported: ReportedRun) -> None:
    events = [{"kind": "outlier", "step": step, "message": f"event {step}"} for step in range(60)]
    html = body(replace(reported, events=events))
    assert "10 more events stand in events.jsonl." in html
    assert "event 9<" not in html
    assert "event 59" in html


def test_a_calm_run_says_so(reported: ReportedRun) -> None:
    assert "Nothing: no guard fired" in body(replace(reported, events=(), manifest={}))


@pytest.mark.parametrize(
    ("state", "stage", "has"),
    [
        ("finished", "sft", ["reproduce", "eval", "chat", "compare", "from_pretrained"]),
        ("finished", "rm", ["reproduce", "eval", "compare"]),
        ("stopped", "sft", ["--resume_from_checkpoint", "reproduce", "eval", "compare"]),
    ],
)
def test_the_commands_fit_the_run(
    reported: ReportedRun, state: str, stage: str, has: list[str]
) -> None:
    run = replace(reported, state=state, settings={"stage": stage})
    found = [command for _, command in commands(run)]
    assert len(found) == len(has)
    assert all(word in command for word, command in zip(has, found, strict=True))
    assert all("my one" in command for command in found)


def test_all_of_it_is_in_both_languages(reported: ReportedRun) -> None:
    html = body(reported)
    assert html.count('<span lang="en">') == html.count('<span lang="zh-Hans">') > 60
