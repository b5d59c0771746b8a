from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.corpus.readers import text_window
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


_DAMAGE = st.sampled_from(
    [*'{}[],:"\\ \n', "1e", "-", "Infin", "tru", "\\u12", "\\ud83d", "9" * 5_000, "\n" * 30, "\x01"]
)


def _outcome(path: Path) -> tuple[list[Any], str]:
    found: list[Any] = []
    try:
        for origin, row in read_json_array(path, lambda bad: found.append(str(bad))):
            found.append((origin, repr(row)))
    except DataError as error:
        return found, str(error)
    return found, ""


@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.floats() | st.text(max_size=9) | st.none())
        | st.integers()
    ),
    indent=st.none() | st.just(1),
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), _DAMAGE | st.just(""))),
    num_bytes=st.integers(4, 40),
)
def test_outcome_is_the_same_wherever_the_window_ends(
    tmp_path_factory, rows, indent, damage, num_bytes
):
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    for at, num_lost, more in damage:
        text = text[:at] + more + text[at + num_lost :]
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes((text or " ").encode())
    whole = _outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_window, "_READ_BYTES", num_bytes)
        assert _outcome(path) == whole


def test_memory_holds_the_row_and_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text_window, "_READ_BYTES", 1 << 12)
    path = tmp_path / "a.json"
    path.write_text("[" + ",".join([json.dumps({"a": "x" * 200})] * 20_000) + "]", encoding="utf-8")
    tracemalloc.start()
    num_rows = sum(1 for _ in read_json_array(path, lambda bad: pytest.fail(str(bad))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_rows == 20_000
    assert peak < path.stat().st_size / 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": "open', r"a\.json:2: the row that starts on this line is longer than"),
        ('{"a": [', r"a\.json:1: the file is no list of rows, and the value that .* is longer"),
    ],
)
def test_values_without_end(write_bytes, read_all, monkeypatch, text: str, message: str):
    monkeypatch.setattr(text_window, "MAX_ROW_BYTES", 100)
    monkeypatch.setattr(text_window, "_READ_BYTES", 16)
    with pytest.raises(DataError, match=message):
        read_all(read_json_array, write_bytes("a.json", (text + " " * 200).encode()))


def _read_all_good(path: Path) -> list[Any]:
    return list(read_json_array(path, lambda bad: pytest.fail(str(bad))))


def test_broken_row_is_reported_long_before_the_end_of_the_file(write_bytes, monkeypatch):
    monkeypatch.setattr(text_window, "MAX_ROW_BYTES", 6_000)
    monkeypatch.setattr(text_window, "_READ_BYTES", 32)
    for broken, message in (("tru", "Expecting value"), ("9" * 5_000, "Number too long")):
        text = f'[{{"a": 1}},\n{{"a": {broken}}}, ' + '{"a": 1}, ' * 2_000
        with pytest.raises(DataError, match=rf"a\.json:2: row 1, .* is not valid JSON: {message}"):
            _read_all_good(write_bytes("a.json", text.encode()))
