from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import DataError
from luthier.corpus.readers.csv_table import read_csv


def test_rows_have_the_line_they_start_on(write_bytes, read_all):
    text = '\ufeffinstruction, output\r\n"two\r\nlines","a ""b"""\r\n\r\n天,d\r\n'
    rows, rejections = read_all(read_csv, write_bytes("a.csv", text.encode()))
    assert [(origin.row, origin.line, row) for origin, row in rows] == [
        (0, 2, {"instruction": "two\r\nlines", "output": 'a "b"'}),
        (1, 5, {"instruction": "天", "output": "d"}),
    ]
    assert rejections == []


_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=9)


@given(st.lists(st.tuples(_CELLS, _CELLS), min_size=1))
def test_any_table_comes_back(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b"), *table])
    path.write_bytes(text.getvalue().encode())
    found = list(read_csv(path, lambda rejection: pytest.fail(str(rejection))))
    assert [tuple(row.values()) for _, row in found] == table


def test_long_values_are_read(write_bytes, read_all):
    path = write_bytes("a.csv", b"a,b\nx," + b"y" * 200_000 + b"\n")
    rows, _ = read_all(read_csv, path)
    assert len(rows[0][1]["b"]) == 200_000


def test_rows_of_another_width_or_with_stray_quotes_can_be_skipped(write_bytes, read_all):
    text = 'a,b\n1,2\n1,2,3\n1\n"x"y,2\n3,4\n'
    rows, rejections = read_all(read_csv, write_bytes("a.csv", text.encode()))
    assert [row["a"] for _, row in rows] == ["1", "3"]
    assert [(r.reason, r.origin.line, r.origin.row, r.content) for r in rejections] == [
        ("wrong_columns", 3, 1, "1,2,3"),
        ("wrong_columns", 4, 2, "1"),
        ("not_csv", 5, 3, '"x"y,2'),
    ]
    assert rejections[0].detail == "3 values for 2 columns (a, b)"
    assert "the row is not valid csv" in rejections[2].detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n", r"a\.csv: the file holds no row below its header"),
        (b"\n\n", r"a\.csv: the file holds no row below its header"),
        (b'a,b\n1,2\n"open,2\n3,4\n', r"a\.csv:3: a quote that opens .* is never closed"),
        (b'"a"x,b\n1,2\n', r"a\.csv:1: the header is not valid csv"),
        (b"a,a\n1,2\n", r"a\.csv:1: the column 'a' stands twice"),
        (b"a,,b\n1,2,3\n", r"a\.csv:1: column 2 has no name"),
        (b"a;b\n1;2\n", r"a\.csv:1: the columns seem to be parted by semicolons"),
        (b"a\tb\n1\t2\n", r"a\.csv:1: the columns seem to be parted by tabs"),
        (b"a,b\n1,\0\n", r"a\.csv:2: zero bytes"),
        (b"a,b\n1,\xe5\xa4", r"a\.csv:2: the file ends in the middle"),
        ("a,b\n1,今天天气很好\n".encode("gbk"), r"a\.csv:2: the file is not UTF-8 .*GBK"),
        ("a,b\n1,2\n".encode("utf-16"), "probably UTF-16"),
    ],
)
def test_damage_to_the_whole_file(write_bytes, read_all, text: bytes, message: str):
    with pytest.raises(DataError, match=message) as caught:
        read_all(read_csv, write_bytes("a.csv", text))
    assert caught.value.mend


def test_row_without_end_is_refused_before_it_fills_the_memory(write_bytes, read_all, monkeypatch):
    monkeypatch.setattr("luthier.corpus.readers.csv_table.MAX_ROW_BYTES", 50)
    good = "".join(f"{number},2\n" for number in range(30))
    path = write_bytes("a.csv", f'a,b\n{good}"open,2\n{good}'.encode())
    with pytest.raises(DataError, match=r"a\.csv:32: the row .* is longer .*\n  Close the quote"):
        read_all(read_csv, path)
