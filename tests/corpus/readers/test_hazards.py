"""Every reader against every hazard: each is read right, or answered with file, line and a mend.

`_FRAMES` puts a value into the second row of a file of each kind; the expected outcome of a hazard
is what the reader makes of that row: the text itself, or a pattern of the message.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Rejection
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import MENDS
from luthier.corpus.readers import compressed, csv_table, raw_file, text_window
from luthier.corpus.readers.dispatch import READERS, read_rows

_FRAMES = {
    ".json": '[\n{"text": "one"},\n{"text": "VALUE"}\n]\n',
    ".jsonl": '{"text": "one"}\n{"text": "VALUE"}\n',
    ".ndjson": '{"text": "one"}\n{"text": "VALUE"}\n',
    ".csv": "text\none\nVALUE\n",
    ".txt": "one\nVALUE\n",
}
_LINE = {".json": 3, ".jsonl": 2, ".ndjson": 2, ".csv": 3, ".txt": 2}
_CHINESE = "请把下面的句子翻译成英文：今天的天气很好"
_BY_LINES = [".jsonl", ".ndjson"]

kinds = pytest.mark.parametrize("kind", list(_FRAMES))
packings = pytest.mark.parametrize("packing", ["", ".gz", ".zst"])


@pytest.fixture
def write(write_bytes, pack):
    """Write a file of a kind; packed where the kind has a second suffix."""

    def run(kind: str, data: bytes, packing: str = "") -> Path:
        return write_bytes(f"a{kind}{packing}", pack(data, packing) if packing else data)

    return run


def _framed(kind: str, value: str) -> str:
    return _FRAMES[kind].replace("VALUE", value)


def _answers(path: Path) -> tuple[list[Any], list[str]]:
    """Return the texts that were read, and `name:line: what` of all that was not.

    Each rejection must have a line and a mend, each error a place and a mend.
    """
    texts: list[Any] = []
    rejections: list[Rejection] = []
    answers: list[str] = []
    ended: DataError | None = None
    try:
        texts.extend(row["text"] for _, row in read_rows(path, rejections.append))
    except DataError as error:
        ended = error
    if ended is not None:
        assert ended.mend
        assert ended.where is not None
        answers.append(f"{Path(ended.where).name}: {ended.problem}")
    for bad in rejections:
        assert MENDS[bad.reason]
        answers.append(f"{Path(str(bad.origin)).name}: {bad.detail}")
    return texts, answers


def _expect(path: Path, pattern: str, texts: list[str] | None = None) -> None:
    found, answers = _answers(path)
    assert len(answers) == 1, (found, answers)
    assert re.match(pattern, answers[0]), answers
    if texts is not None:
        assert found == texts


def test_the_matrix_has_every_reader():
    assert {*_FRAMES, ".parquet"} == set(READERS)


@kinds
@packings
class TestBytes:
    """What may be wrong with the bytes of a file, whatever they say."""

    def test_gbk(self, write, kind: str, packing: str):
        path = write(kind, _framed(kind, _CHINESE).encode("gbk"), packing)
        _expect(path, rf"a{kind}{packing}:{_LINE[kind]}: the file is not UTF-8 .* probably GBK")

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16le", "utf-16be", "utf-32"])
    def test_wide(self, write, kind: str, packing: str, codec: str):
        path = write(kind, _framed(kind, _CHINESE).encode(codec), packing)
        _expect(path, rf"a{kind}{packing}:1: .* it is probably {codec.upper()}", [])

    def test_byte_order_mark_and_crlf(self, write, kind: str, packing: str):
        text = "\ufeff" + _framed(kind, "天").replace("\n", "\r\n")
        assert _answers(write(kind, text.encode(), packing)) == (["one", "天"], [])

    def test_cut_within_a_character(self, write, kind: str, packing: str):
        whole = _framed(kind, "天").encode()
        path = write(kind, whole[: whole.index("天".encode()) + 2], packing)
        _expect(path, rf"a{kind}{packing}:{_LINE[kind]}: the file ends in the middle of ")

    def test_zero_byte(self, write, kind: str, packing: str):
        path = write(kind, _framed(kind, "x\0y").encode(), packing)
        _expect(path, rf"a{kind}{packing}:{_LINE[kind]}: zero bytes at byte \d+ of th")

    def test_half_of_a_surrogate_pair_in_the_bytes(self, write, kind: str, packing: str):
        path = write(kind, _framed(kind, "\ud83d").encode("utf-8", "surrogatepass"), packing)
        _expect(path, rf"a{kind}{packing}:{_LINE[kind]}: .*not UTF-8")

    def test_long_line(self, write, kind: str, packing: str):
        long = "0123456789天" * (30 << 20 >> 4)
        texts, answers = _answers(write(kind, _framed(kind, long).encode(), packing))
        assert (len(texts), answers) == (2, [])
        assert texts[1] == long

    def test_line_beyond_the_bound(self, write, monkeypatch, kind: str, packing: str):
        _set_max_row_bytes(monkeypatch, 5_000)
        path = write(kind, _framed(kind, "x" * 9_000).encode(), packing)
        _expect(path, rf"a{kind}{packing}:{_LINE[kind]}: .* is longer than")

    def test_nothing(self, write, kind: str, packing: str):
        for blank in (b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf"):
            _expect(
                write(kind, blank, packing),
                rf"a{kind}{packing}(: the file (is empty|holds no)|:1: column 1 has no name)",
                [],
            )


@kinds
@pytest.mark.parametrize("packing", [".gz", ".zst"])
class TestPackedBytes:
    def test_bomb(self, write, monkeypatch, kind: str, packing: str):
        monkeypatch.setattr(compressed, "FREE_BYTES", 1 << 20)
        path = write(kind, _framed(kind, "x" * (4 << 20)).encode(), packing)
        _expect(path, rf"a{kind}{packing}:\d: .* packed bytes have become")

    def test_cut(self, write, kind: str, packing: str):
        path = write(kind, _framed(kind, "x").encode(), packing)
        path.write_bytes(path.read_bytes()[:-2])
        _expect(path, rf"a{kind}{packing}:\d: the \w+ data ends early")

    def test_not_packed(self, write, kind: str, packing: str):
        path = write(kind, _framed(kind, "x").encode())
        path.rename(path.with_name(path.name + packing))
        _expect(
            path.with_name(path.name + packing), rf"a{kind}{packing}: the file is not \w+, th", []
        )


@pytest.mark.parametrize("kind", [*_FRAMES, ".parquet", ".jsonl.gz", ".txt.zst"])
class TestPlaces:
    """What may stand where a file should."""

    def test_pipe(self, tmp_path: Path, kind: str):
        os.mkfifo(tmp_path / f"a{kind}")
        _expect(
            tmp_path / f"a{kind}", rf"a{kind}: this is a pipe or a device, not an ordinary file"
        )

    def test_folder(self, tmp_path: Path, kind: str):
        (tmp_path / f"a{kind}").mkdir()
        _expect(tmp_path / f"a{kind}", rf"a{kind}: this is a folder, a file is needed")

    def test_unreadable(self, write_bytes, monkeypatch, kind: str):
        def refuse(path: Path, *_: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        path = write_bytes(f"a{kind}", b"x")
        monkeypatch.setattr(Path, "open", refuse)  # the superuser may read what modes forbid
        _expect(path, rf"a{kind}: the file can't be read: Permission denied")

    def test_missing(self, tmp_path: Path, kind: str):
        _expect(tmp_path / f"a{kind}", rf"a{kind}: the file can't be read: No such file")

    def test_no_bytes(self, write_bytes, kind: str):
        _expect(write_bytes(f"a{kind}", b""), rf"a{kind}: the file is empty")


_DEEP = "[" * 100_000 + "]" * 100_000
_JSON_ROWS = {
    "lone_surrogate": (r'{"text": "\ud83d"}', "half of a surrogate pair"),
    "duplicate_key": ('{"text": "a", "text": "b"}', "the field text stands 2 times"),
    "duplicate_key_within": ('{"text": "a", "m": [{"b": 1, "b": 2}]}', "the field b stands 2 t"),
    "scalar": ("5", "the row is the number 5"),
    "text": ('"x"', "the row is text"),
    "null": ("null", "the row is null"),
    "list": ("[]", "the row is a list"),
    "nan": ('{"text": NaN}', "NaN is not a JSON value"),
    "deep": ('{"text": ' + _DEEP + "}", ".* is not valid JSON: "),
    "deep_and_open": ('{"text": ' + "[" * 100_000, ".*(is not valid JSON: |ends in the middle)"),
    "cut": ('{"text": "tw', "(the file ends in the middle|row 1, .* is not valid JSON)"),
}


@pytest.mark.parametrize("kind", [".json", *_BY_LINES])
@pytest.mark.parametrize("name", list(_JSON_ROWS))
@pytest.mark.parametrize("read_bytes", [64, 1 << 20])
def test_json_rows(write, monkeypatch, kind: str, name: str, read_bytes: int):
    monkeypatch.setattr(text_window, "_READ_BYTES", read_bytes)
    row, pattern = _JSON_ROWS[name]
    text = _FRAMES[kind].replace('{"text": "VALUE"}', row)
    if name == "cut" and kind != ".json":
        text = text.rstrip("\n")
    _expect(write(kind, text.encode()), rf"a{kind}:{_LINE[kind]}: {pattern}", ["one"])


@pytest.mark.parametrize("kind", [".json", *_BY_LINES])
def test_nulls_and_escaped_zeros_are_values(write, kind: str):
    text = _FRAMES[kind].replace('"VALUE"', "null")
    assert _answers(write(kind, text.encode())) == (["one", None], [])
    assert _answers(write(kind, _framed(kind, r"\u0000").encode())) == (["one", "\0"], [])


@pytest.mark.parametrize("value", [_DEEP, "null", "5", "NaN", r"\ud83d"])
def test_what_is_json_elsewhere_is_text_in_a_table_and_in_a_text(write, value: str):
    assert _answers(write(".csv", _framed(".csv", value).encode())) == (["one", value], [])
    assert _answers(write(".txt", _framed(".txt", value).encode())) == (["one", value], [])


def test_csv_has_hazards_of_its_own(write):
    _expect(write(".csv", b"text,text\na,b\n"), r"a\.csv:1: the column 'text' stands twice")
    _expect(write(".csv", b"text,b\none,1\ntwo\n"), r"a\.csv:3: 1 values for 2 columns", ["one"])
    _expect(write(".csv", b'text\none\n"tw'), r"a\.csv:3: a quote that opens .* never closed")
    assert _answers(write(".csv", b"text,b\n,\n")) == ([""], [])


class TestParquet:
    """A parquet file has no lines and no encoding; what else may be wrong with it."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "a.parquet"

    def _write(self, path: Path, *columns: Any, names: tuple[str, ...] = ("text",)) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table([pa.array(column) for column in columns], names=list(names)), path)

    def test_values_that_are_read(self, path: Path):
        values = ["\ufeffa\r\n", "x\0y", None, "x" * (30 << 20), _DEEP]
        self._write(path, values)
        assert _answers(path) == (values, [])

    def test_same_name_twice(self, path: Path):
        self._write(path, ["a"], ["b"], names=("text", "text"))
        _expect(path, r"a\.parquet: the column 'text' stands twice", [])

    @pytest.mark.parametrize(
        "value", ["\ud83d".encode("utf-8", "surrogatepass"), _CHINESE.encode("gbk")]
    )
    def test_text_that_is_not_utf8(self, path: Path, value: bytes):
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        text = pa.Array.from_buffers(pa.string(), 1, pa.array([value]).buffers())
        pq.write_table(pa.table({"text": text}), path)
        _expect(path, r"a\.parquet: the file can't be read as parquet: .*utf-8")

    def test_no_rows_cut_files_and_other_content(self, path: Path):
        self._write(path, [])
        _expect(path, r"a\.parquet: the table has no rows")
        self._write(path, ["x" * 99])
        whole = path.read_bytes()
        for data in (whole[:-9], whole[9:], b"5\n", '{"text": "x"}\n'.encode("utf-16")):
            path.write_bytes(data)
            _expect(path, r"a\.parquet: the file can't be read as parquet", [])


def _set_max_row_bytes(monkeypatch: pytest.MonkeyPatch, value: int) -> None:
    monkeypatch.setattr(raw_file, "_PIECE_BYTES", 1_000)
    monkeypatch.setattr(text_window, "_READ_BYTES", 1_000)
    for module in (raw_file, csv_table, text_window):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", value)


def test_rows_of_the_matrix_are_what_they_seem():
    assert [row["text"] for row in json.loads(_FRAMES[".json"])] == ["one", "VALUE"]
