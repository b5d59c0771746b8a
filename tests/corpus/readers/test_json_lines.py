from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.corpus.readers.json_lines import read_json_lines


def test_lines_with_bom_crlf_blanks_and_no_last_line_end(write_bytes, read_all):
    data = '\ufeff{"a": "天"}\r\n\r\n{"a": "\u2028"}\n  \n{"a": 3}'.encode()
    rows, rejections = read_all(read_json_lines, write_bytes("a.jsonl", data))
    assert [(origin.row, origin.line, row["a"]) for origin, row in rows] == [
        (0, 1, "天"),
        (1, 3, "\u2028"),
        (2, 5, 3),
    ]
    assert rejections == []


@given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8)), min_size=1))
def test_any_rows_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = list(read_json_lines(path, lambda rejection: pytest.fail(str(rejection))))
    assert [row for _, row in found] == rows


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"{'a': 1}", "not_json", "not valid JSON: Expecting property name"),
        (b"{", "not_json", "not valid JSON"),
        (b'{"a": 1} {"a": 2}', "not_json", "text after the end of the object: ' {\"a\": 2}'"),
        (b"[" * 1500 + b"]" * 1500, "not_json", "not valid JSON"),
        ("\u3000{}".encode(), "not_json", "not valid JSON: unexpected character"),
        (b"5", "not_an_object", "the row is the number 5"),
        (b"null", "not_an_object", "the row is null"),
        (b'["a"]', "not_an_object", "the row is a list"),
        (b'{"a": NaN}', "nan", "NaN is not a JSON value"),
        (b'{"a": 1, "a" : 2}', "duplicate_key", "the field a stands 2 times"),
        (b'{"t": "\\": x", "b": {"c": 1, "c": 2}}', "duplicate_key", "the field c stands"),
        (b'{"a": "\\ud800"}', "lone_surrogate", r"\ud800"),
        (b'{"a": "\0"}', "nul_bytes", "zero bytes at byte 8"),
    ],
)
def test_one_bad_line_is_a_row_that_can_be_skipped(
    write_bytes, read_all, line: bytes, reason: str, detail: str
):
    data = b'{"a": "before"}\n' + line + b'\n{"a": "behind"}\n'
    rows, rejections = read_all(read_json_lines, write_bytes("a.jsonl", data))
    assert [row["a"] for _, row in rows] == ["before", "behind"]
    assert [(r.reason, r.origin.line, r.origin.row) for r in rejections] == [(reason, 2, 1)]
    assert detail in rejections[0].detail
    assert rejections[0].content[:4] == line.decode().strip()[:4]


def test_quotes_and_colons_within_texts_are_no_keys(write_bytes, read_all):
    rows, rejections = read_all(
        read_json_lines, write_bytes("a.jsonl", b'{"a": "he said \\": yes\\" : no"}\n')
    )
    assert [row["a"] for _, row in rows] == ['he said ": yes" : no']
    assert rejections == []


@pytest.mark.parametrize("end", [b'{"a": "tex', b'{"a": "' + "天".encode()[:2]])
def test_last_line_cut_off(write_bytes, read_all, end: bytes):
    rows, rejections = read_all(read_json_lines, write_bytes("a.jsonl", b'{"a": 1}\n' + end))
    assert len(rows) == 1
    assert [(r.reason, r.origin.line) for r in rejections] == [("truncated", 2)]
    assert "the file ends in the middle of this row" in rejections[0].detail


def test_wrong_encoding_ends_the_reading_even_where_rows_may_be_skipped(write_bytes, read_all):
    data = '{"a": 1}\n{"a": "今天天气很好"}\n'.encode("gbk")
    with pytest.raises(DataError, match=r"a\.jsonl:2: the file is not UTF-8 .* probably GBK"):
        read_all(read_json_lines, write_bytes("a.jsonl", data))


def test_utf16_ends_the_reading(write_bytes, read_all):
    with pytest.raises(DataError, match="probably UTF-16"):
        read_all(read_json_lines, write_bytes("a.jsonl", '{"a": 1}\n'.encode("utf-16")))


def test_blank_file(write_bytes, read_all):
    with pytest.raises(DataError, match="the file holds nothing but blank lines"):
        read_all(read_json_lines, write_bytes("a.jsonl", b"\n \n"))
