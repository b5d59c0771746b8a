"""Text in Markdown shows as what it is."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from luthier.report.markdown import block, both, code, escape
from luthier.report.words import Text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b *c* `d` [e](f) ~g~ $h$ #i |", r"a\_b \*c\* \`d\` \[e\](f) \~g\~ \$h\$ \#i \|"),
        ("<b>&amp;", "&lt;b>&amp;amp;"),
        ("two\nlines\x00", "two lines␀"),
        ("c:\\x", r"c:\\x"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_what_is_markup_or_no_text_stays() -> None:
    assert escape(Markup("**a**")) == "**a**"
    assert escape(3) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", "`a`"), ("a`b", "`` a`b ``"), ("a|b\nc", r"`a\|b c`"), ("", "` `")],
)
def test_code(text: str, expected: str) -> None:
    assert code(text) == expected


def test_block_outgrows_the_fences_inside() -> None:
    assert block("a: 1", "yaml") == "```yaml\na: 1\n```"
    assert block("```", "sh") == "````sh\n```\n````"


def test_both_languages() -> None:
    assert both(Text("left", "剩余")) == "left (剩余)"
    assert both(Text("a_b", "a_b")) == r"a\_b"
