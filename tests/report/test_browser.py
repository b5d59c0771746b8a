"""Pages in a real browser without a network: all drawn, nothing asked for, no overflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headless_chromium import find_chromium, running_chromium
from luthier.report.compare_page import compare_page
from luthier.report.reported_run import ReportedRun
from luthier.report.run_page import run_page

CHARTS = "document.querySelectorAll('.chart').length"
UNDRAWN = """[...document.querySelectorAll('.chart')]
    .filter(chart => !chart.querySelector('.main-svg')).map(chart => chart.id)"""
PATHS = "[...document.querySelectorAll('#loss .trace')].length"
WIDTH = "document.documentElement.scrollWidth"
TITLE = "document.querySelector('#loss .xtitle').textContent"
COLOUR = "document.querySelector('#loss .xtitle').style.fill"
EVIL = "</script><script>document.title='evil'</script><img src=http://evil.invalid/x.png>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    with running_chromium(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(html: str) -> Path:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        return path

    return write


@pytest.fixture
def evil(reported: ReportedRun) -> ReportedRun:
    """A run whose data wants to be run."""
    sample = {"step": 1, "prompt": EVIL, "answer": EVIL, "finish_reason": "stop"}
    return replace(reported, name=EVIL, samples=[*reported.samples, sample])


def html_of(kind: str, run: ReportedRun) -> str:
    return run_page(run) if kind == "report" else compare_page([run, replace(run, name="two")])


def test_the_browser_sees_what_goes_wrong(browser: Any, write: Any) -> None:
    bad = "<p style='width:900px'>wide</p><img src='http://evil.invalid/x.png'>"
    browser.open(write(f"{bad}<script>missing()</script>"), width=360)
    assert any("missing is not defined" in complaint for complaint in browser.complaints)
    assert "http://evil.invalid/x.png" in browser.requests
    assert browser.value(WIDTH) > 360


@pytest.mark.parametrize("kind", ["report", "compare"])
@pytest.mark.parametrize("width", [1280, 360])
def test_all_is_drawn_and_nothing_is_asked_for(
    browser: Any, write: Any, evil: ReportedRun, kind: str, width: int
) -> None:
    path = write(html_of(kind, evil))
    browser.open(path, width=width)
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]
    assert browser.value(CHARTS) >= 4
    assert browser.value(UNDRAWN) == []
    assert browser.value(PATHS) >= 3
    assert browser.value(WIDTH) == width
    assert browser.value("document.title") != "evil"
    assert browser.value("document.querySelectorAll('main script, main img').length") == 0


def test_charts_follow_the_language_the_axis_and_the_dark(
    browser: Any, write: Any, reported: ReportedRun
) -> None:
    path = write(html_of("compare", reported))
    browser.open(path)
    light = browser.value(COLOUR)
    assert browser.value(TITLE) == "step"
    browser.value("document.querySelector('input[value=tokens]').click()")
    assert browser.value(TITLE) == "tokens trained on"
    browser.value("document.getElementById('lang-zh').click()")
    assert browser.value(TITLE) == "已训练 token 数"
    assert browser.value("document.documentElement.lang") == "zh-Hans"
    browser.open(path, scheme="dark")
    assert browser.value(COLOUR) != light
    assert browser.complaints == []


def test_a_dark_page_is_printed_on_white(browser: Any, write: Any, reported: ReportedRun) -> None:
    path = write(html_of("report", reported))
    browser.open(path)
    light = browser.value(COLOUR)
    browser.open(path, scheme="dark")
    browser.value("window.dispatchEvent(new Event('beforeprint'))")
    paper = browser.value("getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert paper.strip() == "#fff"
    assert browser.value("document.querySelector('#loss .main-svg').clientWidth") <= 640
    browser.value("window.dispatchEvent(new Event('afterprint'))")
    assert browser.value(COLOUR) != light
    assert browser.print_pdf().startswith(b"%PDF")
    assert browser.complaints == []
