"""Words: every reason that the code can give has them, in both languages."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest

import luthier.corpus.steps
from luthier.corpus.bad_rows import MENDS
from luthier.corpus.filters import FILTERS
from luthier.corpus.steps.pii_hits import KINDS
from luthier.corpus.steps.quality import Rule
from luthier.corpus.steps.registry import STEPS
from luthier.report.words import (
    Text,
    about,
    has_reason,
    name_of,
    number,
    reason_words,
    say,
    share,
)

_CHINESE = re.compile("[\u4e00-\u9fff]")


def reasons_in_steps() -> Iterator[tuple[str, str]]:
    """Yield file and reason of each `Drop(...)`, `RowError(...)` and yielded flaw in the steps."""
    for path in sorted(Path(luthier.corpus.steps.__path__[0]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for found in _reason(node, path.stem):
                if isinstance(found, ast.Constant) and isinstance(found.value, str):
                    yield path.stem, found.value


def _reason(node: ast.AST, module: str) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        at = {"Drop": 1, "RowError": 0}.get(node.func.id)
        if at is not None and len(node.args) > at:
            yield node.args[at]
    if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and module == "schema":
        yield node.value.elts[0]


def test_reasons_are_found_in_the_source() -> None:
    found = set(reasons_in_steps())
    expected = {("exact", "dup_exact"), ("near", "dup_near"), ("decontaminate", "leaked")}
    assert expected | {("pii", "pii"), ("schema", "equal_sides"), ("language", "language")} <= found


@pytest.mark.parametrize(
    ("step", "reason"),
    sorted(
        {("read", reason) for reason in (*MENDS, *FILTERS)}
        | {("quality", rule) for rule in get_args(Rule)}
        | {("schema", reason) for reason in MENDS}
        | set(reasons_in_steps())
        | {("semantic", "dup_semantic")}
    ),
)
def test_every_reason_has_words_in_both_languages(step: str, reason: str) -> None:
    assert has_reason(step, reason)
    words = reason_words(step, reason)
    for text in (words.name, words.meaning, words.action):
        assert text.en
        assert not _CHINESE.search(text.en)
        assert _CHINESE.search(text.zh)


def test_a_reason_that_two_steps_share_has_the_words_of_the_step() -> None:
    assert reason_words("read", "truncated").name.en == "file cut off"
    assert reason_words("quality", "truncated").name.en == "answer cut off"


def test_an_unknown_reason_is_called_by_its_name() -> None:
    assert not has_reason("mine", "odd")
    assert reason_words("mine", "odd").name == Text("odd", "odd")
    assert reason_words("mine", "{odd}").name == Text("{odd}", "{odd}")


def test_steps_and_kinds_of_personal_data_have_names() -> None:
    for name in ("read", *STEPS):
        assert _CHINESE.search(name_of("steps", name).zh)
    for kind in KINDS:
        assert _CHINESE.search(name_of("pii", kind).zh)
    assert name_of("languages", "xx") == Text("xx", "xx")


def test_both_languages_of_all_words_have_the_same_blanks() -> None:
    words = json.loads(files("luthier.report").joinpath("words.json").read_text(encoding="utf-8"))
    for section in words.values():
        for name, (en, zh) in section.items():
            assert sorted(re.findall(r"{\w+}", en)) == sorted(re.findall(r"{\w+}", zh)), name


def test_a_blank_takes_a_text_in_each_language() -> None:
    found = say("samples", num=Text("two", "两"))
    assert found == Text("two samples", "两 个样本")


@pytest.mark.parametrize(
    ("count", "en", "zh"),
    [
        (999, "999", "999"),
        (8_104_221, "8.1M", "810 万"),
        (12_345, "12.3k", "1.2 万"),
        (2_000_000_000, "2.0B", "20 亿"),
    ],
)
def test_long_counts_as_they_are_said(count: int, en: str, zh: str) -> None:
    assert about(count) == Text(en, zh.replace(" ", "\u00a0"))


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1, 3, "33.3 %"),
        (0, 3, "0 %"),
        (3, 3, "100 %"),
        (1, 10**9, "< 0.1 %"),
        (10**9 - 1, 10**9, "> 99.9 %"),
        (0, 0, "-"),
    ],
)
def test_a_share_never_rounds_to_nothing_or_all(part: int, whole: int, expected: str) -> None:
    assert share(part, whole) == expected.replace(" ", "\u00a0")


def test_number() -> None:
    assert number(1234567) == "1,234,567"
