from __future__ import annotations

import gzip
import shlex
from pathlib import Path

import pytest

from luthier.corpus.readers.encoding import (
    byte_in_line,
    convert_mend,
    encoding_error,
    guess_encoding,
    line_of,
    wide_encoding,
)

_CHINESE = "请把下面的句子翻译成英文：今天的天气很好，我们去公园散步吧。"
_TRADITIONAL = "請把下面的句子翻譯成英文：今天的天氣很好，我們去公園散步吧。"
_JAPANESE = "次の文を英語に訳してください。今日は天気がいいので、公園を散歩しましょう。"


def _error_of(data: bytes) -> UnicodeDecodeError:
    with pytest.raises(UnicodeDecodeError) as caught:
        data.decode("utf-8")
    return caught.value


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        (_CHINESE, "gbk"),
        (_TRADITIONAL, "big5"),
        (_JAPANESE, "shift_jis"),
        ("Le café est fermé à Noël.", "windows-1252"),
        ("It’s “quoted” – once.", "windows-1252"),
    ],
)
@pytest.mark.parametrize("frame", ["{}", '[{{"instruction": "{}", "output": "ok"}}]\n'])
def test_guess(text: str, codec: str, frame: str):
    assert guess_encoding(frame.format(text).encode(codec)) == codec


def test_four_byte_characters_need_gb18030():
    assert guess_encoding((_CHINESE + "😀").encode("gb18030")) in {"gbk", "gb18030"}


def test_no_guess_rather_than_a_wrong_one():
    assert guess_encoding(b"\x81\x00\x90\x01\x8d") is None


def test_wide_encoding_by_mark_and_by_zeros():
    assert wide_encoding(b"\xff\xfe[\0") == "utf-16"
    assert wide_encoding(b"\xff\xfe\0\0") == "utf-32"
    assert wide_encoding(b"[\0{\0") == "utf-16le"
    assert wide_encoding(b"[") is None


def test_places_count_from_one():
    assert (line_of(b"ab\ncd", 4), byte_in_line(b"ab\ncd", 4)) == (2, 2)
    assert (line_of(b"ab", 0), byte_in_line(b"ab", 0)) == (1, 1)


def test_error_names_line_byte_encoding_and_command(write_bytes):
    data = f'[\n{{"a": "{_CHINESE}"}}]'.encode("gbk")
    path = write_bytes("a.json", data)
    error = encoding_error(path, 2, _error_of(data))
    assert error.problem == (
        "the file is not UTF-8 (first at byte 8 of this line), it is probably GBK"
    )
    assert error.where == f"{path}:2"
    assert error.mend == convert_mend(path, "gbk")


def test_one_bad_byte_in_utf8_is_not_called_another_encoding(write_bytes):
    data = (_CHINESE + "\n").encode() + b"caf\xe9\n"
    path = write_bytes("a.jsonl", data)
    error = encoding_error(path, 2, _error_of(data))
    assert error.problem == "byte 4 of this line is not UTF-8, though most of the file is"


def test_bad_line_behind_the_sample_counts(write_bytes, monkeypatch):
    monkeypatch.setattr("luthier.corpus.readers.encoding._SAMPLE_BYTES", 8)
    data = b'{"a": 1}\n' + _CHINESE.encode("gbk")
    assert "GBK" in encoding_error(write_bytes("a.jsonl", data), 2, _error_of(data)).problem


def test_unknown_encoding_asks_for_its_name(write_bytes):
    path = write_bytes("a.json", b"\x81\x90\x8d")
    error = encoding_error(path, 1, _error_of(b"\x81\x90\x8d"))
    assert error.mend is not None
    assert "iconv -f ITS_ENCODING" in error.mend


def test_packed_files_are_unpacked_for_the_sample_and_for_the_mend(write_bytes):
    data = f'{{"a": "{_CHINESE}"}}\n'.encode("gbk")
    path = write_bytes("a b.jsonl.gz", gzip.compress(data))
    error = encoding_error(path, 1, _error_of(data), num_before=100)
    assert error.problem == (
        "the file is not UTF-8 (first at byte 108 of this line), it is probably GBK"
    )
    target = shlex.quote(str(path.with_name("a b.utf8.jsonl.gz")))
    assert error.mend == (
        f"Convert it: gzip -dc '{path}' | iconv -f gbk -t utf-8 | gzip > {target}"
    )
    assert "| zstd > a.utf8.txt.zst" in convert_mend(Path("a.txt.zst"), "gbk")
    assert convert_mend(Path("data"), "gbk").endswith("data > data.utf8")
