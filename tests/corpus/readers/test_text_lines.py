from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.readers.text_lines import read_text_lines

_WIKI = Path(__file__).parents[3].parent / "shared" / "data" / "wiki_demo.txt"


def test_each_filled_line_is_a_document(write_bytes, read_all):
    data = "\ufeff  琴师 \r\n\r\n\u3000\t\nb\u2028c\x0bd\re\n{}".encode()
    rows, rejections = read_all(read_text_lines, write_bytes("a.txt", data))
    assert [(origin.row, origin.line, row) for origin, row in rows] == [
        (0, 1, {"text": "  琴师 "}),
        (1, 4, {"text": "b\u2028c\x0bd\re"}),
        (2, 5, {"text": "{}"}),
    ]
    assert rejections == []


def test_damaged_lines_can_be_skipped(write_bytes, read_all):
    data = b"a\nb\0\n\nc\n" + "天".encode()[:2]
    rows, rejections = read_all(read_text_lines, write_bytes("a.txt", data))
    assert [row["text"] for _, row in rows] == ["a", "c"]
    assert [(r.reason, r.origin.line, r.origin.row) for r in rejections] == [
        ("nul_bytes", 2, 1),
        ("truncated", 5, 3),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b" \n\n", r"a\.txt: the file holds nothing but blank lines"),
        (b"\xef\xbb\xbf", r"a\.txt: the file holds nothing but blank lines"),
        ("a\n今天天气很好\n".encode("gbk"), r"a\.txt:2: the file is not UTF-8 .*GBK"),
        ("ab\n".encode("utf-16"), r"a\.txt:1: .* probably UTF-16"),
        (b"a\rb\rc\r", r"a\.txt:1: the lines end in bare carriage returns"),
        (b"a\n\xed\xa0\x80\n", r"a\.txt:2: .*not UTF-8"),
    ],
)
def test_damage_to_the_whole_file(write_bytes, read_all, data: bytes, message: str):
    with pytest.raises(DataError, match=message) as caught:
        read_all(read_text_lines, write_bytes("a.txt", data))
    assert caught.value.mend


@pytest.mark.skipif(not _WIKI.is_file(), reason="the real data are not on this machine")
def test_real_data(read_all):
    rows, rejections = read_all(read_text_lines, _WIKI)
    assert (len(rows), rejections) == (30, [])
    assert rows[0][1]["text"].startswith("Anarchism is a political philosophy")
