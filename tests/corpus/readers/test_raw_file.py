from __future__ import annotations

import os
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.bad_rows import RowError
from luthier.corpus.readers import raw_file
from luthier.corpus.readers.raw_file import (
    check_width,
    decode_line,
    decode_part,
    lines_of,
    open_data_file,
    read_text,
)


def test_open_reads_bytes(write_bytes):
    with open_data_file(write_bytes("a.json", b"[]")) as stream:
        assert stream.read() == b"[]"


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.json: the file can't be read: No such file"):
        open_data_file(tmp_path / "gone.json")


def test_folder_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="this is a folder, a file is needed"):
        open_data_file(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_refused_and_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="this is a pipe or a device, not an ordinary file"):
        open_data_file(tmp_path / "pipe.json")


def test_empty_file_is_refused(write_bytes):
    with pytest.raises(DataError, match=r"a\.json: the file is empty\n  Write or download"):
        open_data_file(write_bytes("a.json", b""))


def test_text_loses_its_byte_order_mark_and_nothing_else(write_bytes):
    path = write_bytes("a.json", "\ufeff天 é\r\n".encode())
    assert read_text(path) == "天 é\r\n"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16le", "utf-16be", "utf-32"])
def test_wide_encodings_are_named_with_the_command_that_mends_them(write_bytes, codec: str):
    path = write_bytes("my data.json", '[{"a": "天"}]'.encode(codec))
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert f"probably {codec.upper()}" in caught.value.problem
    assert caught.value.where == f"{path}:1"
    assert caught.value.mend is not None
    assert f"iconv -f {codec} -t utf-8 '{path}' > " in caught.value.mend
    assert "my data.utf8.json" in caught.value.mend


def test_width_of_ordinary_text_passes(tmp_path: Path):
    check_width(tmp_path, b'[{"a')
    check_width(tmp_path, b"\0\0\0\0")  # zeros alone are damage, not an encoding


def test_zero_bytes_are_placed(write_bytes):
    path = write_bytes("a.json", b'[\n{"a":"\0\0"}]')
    with pytest.raises(DataError, match=r"a\.json:2: zero bytes at byte 7 of this line"):
        read_text(path)


def test_file_cut_within_a_character_is_told_from_a_wrong_encoding(write_bytes):
    path = write_bytes("a.json", b'[\n{"a":"' + "天".encode()[:2])
    with pytest.raises(DataError, match=r"a\.json:2: the file ends in the middle of a character"):
        read_text(path)


def test_wrong_encoding_is_placed(write_bytes):
    path = write_bytes("a.json", '[\n{"a":"今天天气很好"}]'.encode("gbk"))
    with pytest.raises(DataError, match=r"a\.json:2: the file is not UTF-8 \(first at byte 7"):
        read_text(path)


def test_decode_line(tmp_path: Path):
    assert decode_line(tmp_path, 1, "天\r\n".encode()) == "天\r\n"
    with pytest.raises(RowError, match="zero bytes at byte 2 of the line") as caught:
        decode_line(tmp_path, 1, b"a\0b")
    assert caught.value.reason == "nul_bytes"
    with pytest.raises(RowError, match="ends in the middle of this row") as caught:
        decode_line(tmp_path, 1, b"a" + "天".encode()[:2])
    assert caught.value.reason == "truncated"


def test_decode_line_names_the_encoding(write_bytes):
    line = "今天天气很好\n".encode("gbk")
    path = write_bytes("a.jsonl", b"{}\n" + line)
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*probably GBK"):
        decode_line(path, 2, line)


def test_parts_may_cut_a_character_unless_they_are_the_last(tmp_path: Path):
    data = "é天".encode()
    assert decode_part(tmp_path, data[:4], is_last=False) == ("é", 2)
    assert decode_part(tmp_path, data) == ("é天", 5)
    with pytest.raises(DataError, match=r":7: the file ends in the middle of a character"):
        decode_part(tmp_path, data[:4], line=7)
    with pytest.raises(DataError, match=r":7: zero bytes at byte 12 of this line"):
        decode_part(tmp_path, b"a\0", line=7, num_before=10)
    with pytest.raises(DataError, match=r":8: zero bytes at byte 1 of this line"):
        decode_part(tmp_path, b"a\n\0", line=7, num_before=10)


def test_lines_of_any_length_have_their_number(write_bytes, monkeypatch):
    monkeypatch.setattr(raw_file, "_PIECE_BYTES", 4)
    path = write_bytes("a.txt", b"\xef\xbb\xbfab\n\nabcd\nabcdefghijk\nabcdefg")
    with open_data_file(path) as stream:
        assert list(lines_of(path, stream)) == [
            (1, b"ab\n"),
            (2, b"\n"),
            (3, b"abcd\n"),
            (4, b"abcdefghijk\n"),
            (5, b"abcdefg"),
        ]


def test_line_without_end_is_refused(write_bytes, monkeypatch):
    monkeypatch.setattr(raw_file, "_PIECE_BYTES", 4)
    monkeypatch.setattr(raw_file, "MAX_ROW_BYTES", 10)
    path = write_bytes("a.txt", b"012345678\n0123456789ab\n")
    message = r"a\.txt:2: this line is longer than 10 bytes\n  Put each row on a line of its own"
    with open_data_file(path) as stream, pytest.raises(DataError, match=message):
        list(lines_of(path, stream))
