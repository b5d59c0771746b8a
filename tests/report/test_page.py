"""The frame of pages: own scripts alone, no request to the outside, no script ended by data."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from jinja2 import UndefinedError

from luthier.report.lr_page import shown
from luthier.report.page import environment, render_page
from luthier.report.words import Text

FACTS: dict[str, Any] = {
    "record": {
        "suggestion": None,
        "end": "max_lr",
        "choices": {},
        "num_steps": 10,
        "min_lr": 1e-7,
        "max_lr": 1.0,
        "settings": {
            "model": {"model_name_or_path": "<b>tiny\u202e</b>"},
            "optimizer": {"optim": "adamw_torch"},
        },
        "luthier": "0.1.0",
        "created": "today",
    },
    "verdict": Text("Nothing.", "无。"),
    "shown": shown,
}


def render(figures: dict[str, Any] | None = None) -> str:
    return render_page("lr_find.html.jinja", FACTS, figures)


def test_what_is_printed_is_escaped_and_visible() -> None:
    html = render()
    assert "&lt;b&gt;tiny⟨U+202E⟩&lt;/b&gt;" in html
    assert "<b>tiny" not in html


def test_a_page_without_charts_has_no_plotly() -> None:
    html = render()
    assert len(html) < 50_000
    assert html.count("<script") == 1


def test_only_scripts_of_the_page_are_let_run() -> None:
    html = render({"chart": {"data": [], "layout": {}}})
    allowed = set(re.findall(r"'sha256-([^']+)'", html))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    found = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    assert len(scripts) == 3
    assert found == allowed
    assert "default-src 'none'" in html


def test_no_text_of_a_chart_ends_its_script() -> None:
    html = render({"chart": {"data": [{"name": "</script><script>alert(1)</script>"}]}})
    assert "\\u003c/script>\\u003cscript>alert(1)" in html
    assert "<script>alert" not in html


def test_a_chart_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        render({"chart": {"data": [float("nan")]}})


def test_a_template_that_names_what_is_not_there_fails() -> None:
    template = environment(str, autoescape=True).from_string("{{ number(1234) }} {{ missing }}")
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        template.render()
