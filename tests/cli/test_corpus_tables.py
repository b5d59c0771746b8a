"""How a corpus looks on a terminal: its account, its split, and rows beside what they are like."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from luthier.cli.corpus_tables import panel, print_drop, print_drops, print_outcome, print_steps


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(file: io.StringIO) -> Console:
    return Console(file=file, width=100, highlight=False, color_system=None)


def step(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "rows_in": 2000,
        "dropped": {},
        "counts": {},
        "from_cache": False,
        "seconds": 1.25,
        **facts,
    }


def manifest(**facts: Any) -> dict[str, Any]:
    before = {"rows": 2000, "tokens": 50_000.0, "languages": {}}
    after = {"rows": 1500, "tokens": 40_000.0, "languages": {"en": 1200, "zh": 300}}
    return {
        "statistics": {"before": before, "after": after},
        "split": None,
        "warnings": [],
        "data_version": "0123456789abcdef",
        **facts,
    }


def drop(**facts: Any) -> dict[str, Any]:
    return {
        "id": "a#1",
        "detail": "the same text",
        "score": None,
        "text": "user: Hi",
        "matched_id": None,
        "matched_text": None,
        **facts,
    }


def test_a_step_is_a_line_with_its_reasons(console: Console, file: io.StringIO):
    print_steps(
        console,
        [
            step("read", counts={"format_alpaca": 2000}, from_cache=True),
            step("exact", dropped={"dup_exact": 1200, "[b]": 3}, counts={"mended": 7}),
        ],
    )
    header, read, exact = (" ".join(line.split()) for line in file.getvalue().splitlines())
    assert header.startswith("step rows in dropped reasons")
    assert read == "read 2,000 - format_alpaca 2000 kept".replace("2000 kept", "2,000 kept")
    assert exact == "exact 2,000 1,203 dup_exact 1,200, [b] 3; mended 7 1.2 s"


def test_what_is_left(console: Console, file: io.StringIO):
    print_outcome(console, manifest())
    assert file.getvalue().splitlines() == [
        "left 1,500 of 2,000 rows (75.0 %), about 40.0k of 50.0k tokens; en 80.0 %, zh 20.0 %",
        "data version 0123456789ab",
    ]


def test_languages_that_nobody_asked_for_are_not_told(console: Console, file: io.StringIO):
    facts = manifest()
    facts["statistics"]["after"]["languages"] = {"unknown": 1500}
    print_outcome(console, facts)
    assert file.getvalue().splitlines()[0].endswith("of 50.0k tokens")


@pytest.mark.parametrize(("num_relatives", "share"), [(0, "0 (0.0 %)"), (25, "25 (50.0 %)")])
def test_the_split_with_its_audit(
    console: Console, file: io.StringIO, num_relatives: int, share: str
):
    audit = {"num_relatives": num_relatives}
    split = {"train": {"rows": 1450}, "val": {"rows": 50}, "audit": audit}
    print_outcome(console, manifest(split=split))
    text = " ".join(file.getvalue().split())
    assert "split 1,450 to train, 50 to validate" in text
    assert f"near-twin in training: {share}" in text


def test_a_warning_is_one_line(console: Console, file: io.StringIO):
    reason = "[most] rows left " * 10
    print_outcome(console, manifest(warnings=[{"setting": "exact", "reason": reason}]))
    assert f"warning exact: {reason}" in file.getvalue().splitlines()


def test_a_dropped_row_stands_beside_what_it_is_like(console: Console, file: io.StringIO):
    print_drop(console, drop(score=0.875, matched_id="b#2", matched_text="user: Hello"))
    top, middle, bottom = file.getvalue().splitlines()
    assert " a#1 " in top
    assert " the same text (0.88) " in bottom
    assert "kept: b#2" in top
    assert "user: Hi" in middle
    assert "user: Hello" in middle


def test_a_row_whose_match_has_left_names_it(console: Console, file: io.StringIO):
    print_drop(console, drop(matched_id="test[0]#2"))
    assert "the same text, like test[0]#2" in file.getvalue()
    assert "kept" not in file.getvalue()


def test_a_few_rows_of_each_reason(console: Console, file: io.StringIO):
    samples = {"dup_exact": [drop(text=f"row {n} ") for n in range(9)], "[x]": [drop()]}
    print_drops(console, samples)
    text = file.getvalue()
    assert "dup_exact" in text
    assert "[x]" in text
    assert "row 2" in text
    assert "row 3" not in text


def test_long_rows_are_cut_only_where_they_are_samples(console: Console, file: io.StringIO):
    print_drops(console, {"too_long": [drop(text="x" * 3000)]})
    assert file.getvalue().count("x") < 500
    assert "…" in file.getvalue()
    print_drop(console, drop(text="y" * 3000))
    assert file.getvalue().count("y") == 3000


def test_control_characters_are_shown_and_not_obeyed(console: Console, file: io.StringIO):
    console.print(panel("a\x1b[31mred\rb\x7f[bold]c", "[title]", "dim"))
    text = file.getvalue()
    assert "a␛[31mred␍b␡[bold]c" in text
    assert "[title]" in text
    assert "\x1b" not in text
