import pytest

from luthier.corpus.text.code_spans import is_code_line, may_hold_code, outside_code


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("plain", "PLAIN"),
        ("a `code` b", "A `code` B"),
        ("a ``co`de`` b", "A ``co`de`` B"),
        ("a\n```py\nx\n```\nb", "A\n```py\nx\n```\nB"),
        ("a\n~~~\nx\n~~~\nb", "A\n~~~\nx\n~~~\nB"),
        ("a\n```\nnever closed", "A\n```\nnever closed"),
        ("a <pre>x</pre> b", "A <pre>x</pre> B"),
        ("it's a ` tick", "IT'S A ` TICK"),
        ("one ` tick\n\nanother ` tick", "ONE ` TICK\n\nANOTHER ` TICK"),
    ],
)
def test_only_prose_is_changed(text, changed):
    assert outside_code(text, str.upper) == changed


@pytest.mark.parametrize("line", ["x = f(y);", "if (a) {", "def f(x):", "import os", "  return 1"])
def test_lines_of_code_are_told(line):
    assert is_code_line(line)


@pytest.mark.parametrize(
    "line", ["A plain sentence.", "Tom &amp; Jerry", "said &quot;no&quot;", "中文。"]
)
def test_lines_of_prose_are_told(line):
    assert not is_code_line(line)


def test_most_texts_hold_no_mark_of_code():
    assert may_hold_code("a `b`")
    assert not may_hold_code("a < b, and that's all")
