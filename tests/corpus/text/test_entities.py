import html

import pytest

from luthier.corpus.text.entities import decode_entities, speaks_of_markup


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("didn&apos;t &amp; won&#39;t", "didn't & won't"),
        ("R&amp;B 3 &lt; 4 &nbsp;x", "R&B 3 < 4 \xa0x"),
        ("&#20013;&#25991;&#x3002;", "中文。"),
        ("2*3=&lt;&lt;2*3=6&gt;&gt;6", "2*3=<<2*3=6>>6"),
        ("(www.example.com)&#65306;中", "(www.example.com)：中"),
    ],
)
def test_leftover_entities_are_decoded(text, decoded):
    assert decode_entities(text) == decoded


@pytest.mark.parametrize(
    "text",
    [
        "AT&T &unknown; &lt 5 && &",
        "Use `&lt;` here",
        "```\nif (a &lt; b &amp;&amp; c)\n```",
        "if (a &lt; b) {",
        "int *p = &copy;",
        "p = &copy;",
        "see https://x.org/?a=1&amp;b=2 and HttpServlet?groups=&nbsp;only",
    ],
)
def test_code_addresses_and_what_is_no_entity_stay(text):
    assert decode_entities(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "<p>x</p>",
        "an HTML entity",
        "HTML&#26159;",
        "用实体表示",
        "How do I escape the quotes?",
        "a character entity",
        "<br/>",
    ],
)
def test_rows_about_markup_are_told(text):
    assert speaks_of_markup(["plain", text])


@pytest.mark.parametrize(
    "text", ["a < b > c", "<MASK>", "<<3=3>>", "an escape room", "a legal entity", "2 <p"]
)
def test_rows_that_are_not_about_markup_are_told(text):
    assert not speaks_of_markup([text])


def test_one_pass_takes_off_one_layer():
    text = 'He said "no" & left'
    assert decode_entities(html.escape(html.escape(text))) == html.escape(text)
