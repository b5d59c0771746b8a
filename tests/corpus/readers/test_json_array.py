from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.corpus.readers.json_array import read_json_array


def test_rows_have_their_number_and_the_line_they_start_on(write_bytes, read_all):
    text = '\ufeff[\r\n  {"a": 1},\r\n\r\n  {"a":\r\n 2}, {"a": "\\n"}\r\n]\r\n'
    rows, rejections = read_all(read_json_array, write_bytes("a.json", text.encode()))
    assert [(origin.row, origin.line, row["a"]) for origin, row in rows] == [
        (0, 2, 1),
        (1, 4, 2),
        (2, 5, "\n"),
    ]
    assert rejections == []


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5)), min_size=1),
    indent=st.none() | st.integers(0, 3),
)
def test_any_list_comes_back_as_json_reads_it(tmp_path_factory, rows, indent):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = list(read_json_array(path, lambda rejection: pytest.fail(str(rejection))))
    assert [row for _, row in found] == rows
    assert all("{" in lines[origin.line - 1] for origin, _ in found if origin.line)
    assert len({str(origin) for origin, _ in found}) == len(rows)


def test_bad_elements_are_rows_that_can_be_skipped(write_bytes, read_all):
    text = '[{"a": 1},\n5,\n{"a": NaN},\n{"a": 1, "a": 2},\n{"a": "\\ud800"},\n{"a": 2}]'
    rows, rejections = read_all(read_json_array, write_bytes("a.json", text.encode()))
    assert [row["a"] for _, row in rows] == [1, 2]
    assert [(r.reason, r.origin.line, r.origin.row) for r in rejections] == [
        ("not_an_object", 2, 1),
        ("nan", 3, 2),
        ("duplicate_key", 4, 3),
        ("lone_surrogate", 5, 4),
    ]
    assert rejections[2].content == '{"a": 1, "a": 2}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n ", r"a\.json: the file is empty"),
        ("[ ]", r"a\.json: the list is empty"),
        ('[{"a": 1},\n]', r"a\.json:2: a comma stands before the \] that closes the list"),
        ('[{"a": 1}\n{"a": 2}]', r"a\.json:2: a comma or \] is missing after row 0"),
        ('[{"a": 1}\n', r"a\.json:2: the file ends after row 0: the list is never closed"),
        ('[{"a": 1},\n', r"a\.json:1: the file ends in the middle of row 1"),
        ('[{"a": 1},\n{"a": "tex', r"a\.json:2: .* middle of row 1, which starts on line 2"),
        ('[{"a": 1},\n{"a": {"b": 1}', r"a\.json:2: .* middle of row 1, which starts on line 2"),
        (
            '[{"a": 1},\n{\n"a" 2}, {}]',
            r"a\.json:3: row 1, which starts on line 2, is not valid JSON: Expecting ':' delim",
        ),
        ('[{"a": 1}]\n{"a": 2}', r"a\.json:2: text after the end of the list: '\{\"a\": 2\}'"),
        ("[] x", r"a\.json:1: text after the end of the list: 'x'"),
        ("hello", r"a\.json:1: the file is not JSON: Expecting value at column 1"),
        ("5", r"a\.json:1: the file is a single value, not a list"),
        ('{"a": 1}', r"a\.json:1: the file is a single object, not a list of rows"),
        ('{\n"a": 1}\n{\n"a": 2}', r"a\.json:1: the file holds several objects one after"),
    ],
)
def test_damage_to_the_whole_file(write_bytes, read_all, text: str, message: str):
    with pytest.raises(DataError, match=message) as caught:
        read_all(read_json_array, write_bytes("a.json", text.encode()))
    assert caught.value.mend


def test_object_around_the_list_is_answered_with_the_way_to_the_rows(write_bytes, read_all):
    path = write_bytes("a.json", b'{"version": 1, "data": [{"a": 1}]}')
    with pytest.raises(DataError) as caught:
        read_all(read_json_array, path)
    assert caught.value.mend is not None
    assert "jq .data a.json > rows.json" in caught.value.mend


def test_broken_row_is_told_that_lines_could_be_skipped(write_bytes, read_all):
    with pytest.raises(DataError, match=r"In a jsonl file .* bad rows can be skipped"):
        read_all(read_json_array, write_bytes("a.json", b'[{"a": tru}, {"a": 1}]'))


def test_rows_on_one_line_are_told_apart_by_number(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, {"a": 2},\n{"a": 3}]', encoding="utf-8")
    origins = [
        str(origin) for origin, _ in read_json_array(path, lambda row: pytest.fail(str(row)))
    ]
    assert origins == [f"{path}:1", f"{path} row 1", f"{path}:2"]
