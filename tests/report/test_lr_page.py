"""The page of a range test: words in both languages, no request to the outside, every script."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from typing import Any, get_args

import pytest

from luthier.engine.lr_range import End
from luthier.engine.lr_suggestion import Verdict
from luthier.report.lr_page import lr_page, shown, verdict
from luthier.report.words import say

RATES = [10.0 ** (-7 + i / 4) for i in range(28)]
LOSSES = [2.0 - 0.8 / (1 + 1e-3 / rate) + 0.5 * (rate / 3e-2) ** 1.5 for rate in RATES]


@pytest.fixture
def record() -> dict[str, Any]:
    """What lr_find.json holds after a test that found something."""
    return {
        "kind": "luthier lr-find",
        "luthier": "0.1.0",
        "created": "2026-11-05T09:30:00+00:00",
        "suggestion": 4.04e-4,
        "verdict": "clear",
        "choices": {"minimum / 10": 4.04e-4, "steepest": 8.08e-4, "valley": 1e-5},
        "minimum": 4.04e-3,
        "fall": 0.512,
        "noise": 0.002,
        "end": "diverged",
        "seconds": 12.5,
        "start_loss": 2.0,
        "curve": {"learning_rate": RATES, "loss": LOSSES},
        "smoothed": {"learning_rate": RATES, "loss": LOSSES},
        "min_lr": 1e-7,
        "max_lr": 1.0,
        "num_steps": 100,
        "settings": {
            "model": {"model_name_or_path": "models/<b>tiny</b>"},
            "optimizer": {"optim": "adamw_torch"},
        },
    }


def without_suggestion(record: dict[str, Any]) -> dict[str, Any]:
    nothing = {"suggestion": None, "choices": {}, "minimum": None, "fall": None, "noise": None}
    return record | nothing | {"verdict": "too_few"}


class Page(HTMLParser):
    """The scripts, the headings and the attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        if "h1" in self._open:
            self.headings.append(data)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(3.16e-4, "3.2e-4"), (1.0, "1"), (0.05, "0.05"), (9.9e-3, "9.9e-3"), (2e-10, "2.0e-10")],
)
def test_a_rate_is_written_as_settings_have_it(rate: float, text: str):
    assert shown(rate) == text
    assert float(text) == pytest.approx(rate, rel=0.02)


def test_how_sure_it_is(record: dict[str, Any]):
    told = verdict(record)
    assert told.en.startswith("A clear valley: the loss falls by 0.512, 256 times the noise there")
    assert told.en.endswith("agrees within a factor of 2.0.")
    assert "0.512" in told.zh
    assert "> 1,000 times" in verdict(record | {"noise": 0.0}).en
    assert verdict(record | {"verdict": "faint"}).en.startswith("A faint valley")


@pytest.mark.parametrize("name", get_args(Verdict))
def test_every_verdict_has_words(record: dict[str, Any], name: str):
    base = record if name in ("clear", "faint") else without_suggestion(record)
    told = verdict(base | {"verdict": name})
    assert told.en.isascii()
    assert re.search("[\u4e00-\u9fff]", told.zh)


@pytest.mark.parametrize("name", get_args(End))
def test_every_end_has_words(name: str):
    assert re.search("[\u4e00-\u9fff]", say(f"lr_end_{name}").zh)


class TestPage:
    def test_the_suggestion_is_the_heading_in_both_languages(self, record: dict[str, Any]):
        page = Page(lr_page(record))
        assert "Suggested: learning_rate 4.0e-4" in page.headings
        assert "建议：learning_rate 4.0e-4" in page.headings
        assert "Nothing is suggested" in Page(lr_page(without_suggestion(record))).headings

    def test_it_asks_nothing_of_the_network(self, record: dict[str, Any]):
        page = Page(lr_page(record))
        links = [v for _, name, v in page.attributes if name in ("src", "href", "srcset")]
        assert links == ["data:,"]
        policy = next(v for _, name, v in page.attributes if v.startswith("default-src"))
        assert policy.startswith("default-src 'none'")

    def test_only_its_own_scripts_run(self, record: dict[str, Any]):
        html = lr_page(record)
        page = Page(html)
        policy = next(v for _, _, v in page.attributes if v.startswith("default-src"))
        hashes = re.findall(r"'sha256-([^']+)'", policy)
        language, _figure, plotly, draw = page.scripts
        assert [digest(text) for text in (language, plotly, draw)] == hashes

    def test_the_chart_holds_the_numbers_on_a_logarithmic_axis(self, record: dict[str, Any]):
        figure = json.loads(Page(lr_page(record)).scripts[1])
        points, line = figure["data"]
        assert points["x"] == line["x"] == RATES
        assert points["y"] == LOSSES
        layout = figure["layout"]
        assert layout["xaxis"]["type"] == "log"
        assert layout["shapes"][0]["x0"] == record["suggestion"]
        assert layout["annotations"][0]["x"] == pytest.approx(math.log10(record["suggestion"]))
        assert layout["annotations"][0]["text"] == "4.0e-4"
        low, high = layout["yaxis"]["range"]
        # The valley fills the chart; the heights behind it do not.
        assert low < min(LOSSES) < 2.0 < high < max(LOSSES)

    def test_a_test_of_no_losses_has_an_empty_chart(self, record: dict[str, Any]):
        empty = {"learning_rate": [], "loss": []}
        bare = without_suggestion(record) | {"curve": empty, "smoothed": empty, "start_loss": None}
        figure = json.loads(Page(lr_page(bare)).scripts[1])
        assert figure["data"][0]["x"] == []
        assert "shapes" not in figure["layout"]

    def test_names_are_no_markup(self, record: dict[str, Any]):
        html = lr_page(record)
        assert "models/&lt;b&gt;tiny&lt;/b&gt;" in html
        assert "<b>tiny" not in html


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
