from __future__ import annotations

import os
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.bad_rows import RowError
from luthier.corpus.readers.raw_file import check_width, decode_line, open_data_file, read_text


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
