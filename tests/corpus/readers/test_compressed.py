from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from luthier.core.errors import DataError, MissingExtraError
from luthier.corpus.readers import compressed
from luthier.corpus.readers.compressed import open_unpacked, split_suffix

_PACKINGS = pytest.mark.parametrize("packing", [".gz", ".zst"])


def _read(path: Path) -> bytes:
    with open_unpacked(path) as stream:
        return stream.read()


def test_suffixes():
    assert split_suffix(Path("x.y/a.b.JSONL.GZ")) == (".jsonl", ".gz")
    assert split_suffix(Path("a.json")) == (".json", "")
    assert split_suffix(Path("a.zst")) == ("", ".zst")
    assert split_suffix(Path("a")) == ("", "")


@_PACKINGS
def test_bytes_come_back_in_lines_and_whole(write_bytes, pack, packing: str):
    data = random.Random(0).randbytes(300_000)
    path = write_bytes(f"a.txt{packing}", pack(data, packing))
    assert _read(path) == data
    with open_unpacked(path) as stream:
        assert b"".join(stream) == data
    assert _read(write_bytes("a.txt", data)) == data


@_PACKINGS
def test_members_one_after_another_are_one_file(write_bytes, pack, packing: str):
    parts = [pack(b"a" * 5_000, packing), pack(b"", packing), pack(b"b", packing)]
    path = write_bytes(f"a.txt{packing}", b"".join(parts))
    assert _read(path) == b"a" * 5_000 + b"b"


def test_zeros_behind_gzip_and_frames_to_skip_in_zstd_are_legal(write_bytes, pack):
    padded = pack(b"a", ".gz") + bytes(512)
    assert _read(write_bytes("a.txt.gz", padded + pack(b"b", ".gz") + bytes(9_000))) == b"ab"
    skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0xyz"
    data = skipped + pack(b"a", ".zst") + skipped
    assert _read(write_bytes("a.txt.zst", data)) == b"a"


@_PACKINGS
def test_other_content_than_the_name_says(write_bytes, pack, packing: str):
    with pytest.raises(DataError, match=rf"a\.txt{packing}: the file is not .*\n  Name it by what"):
        open_unpacked(write_bytes(f"a.txt{packing}", b"plain text\n"))
    other = {".gz": ".zst", ".zst": ".gz"}[packing]
    with pytest.raises(DataError, match=rf"let its name end in {other}"):
        open_unpacked(write_bytes(f"a.txt{packing}", pack(b"x", other)))


@_PACKINGS
@pytest.mark.parametrize("num_lost", [1, 5, 9_000])
def test_cut_files_are_told_from_whole_ones(write_bytes, pack, packing: str, num_lost: int):
    draw = random.Random(1)
    lines = b"".join(draw.randbytes(9).hex().encode() + b"\n" for _ in range(2_000))
    path = write_bytes(f"a.txt{packing}", pack(lines, packing)[:-num_lost])
    with pytest.raises(DataError, match=r"a\.txt\.\w+:\d+: the \w+ data ends early") as caught:
        _read(path)
    assert caught.value.mend == (
        f"Write or download the file again; {'gzip' if packing == '.gz' else 'zstd'} -t tests it."
    )


def test_cut_file_names_the_line_behind_the_last_whole_one(write_bytes, pack):
    first, second = pack(b"1\n2\n", ".zst"), pack(b"3\n", ".zst")
    with pytest.raises(DataError, match=r"a\.txt\.zst:4: the zstd data ends early"):
        _read(write_bytes("a.txt.zst", first + second[:-4]))


@_PACKINGS
def test_flipped_bits_are_found(write_bytes, pack, packing: str):
    data = bytearray(pack(random.Random(2).randbytes(500) + b"\n", packing))
    data[200] ^= 16
    with pytest.raises(DataError, match=r"data is damaged here or close behind: .*check") as caught:
        _read(write_bytes(f"a.txt{packing}", bytes(data)))
    assert caught.value.where is not None
    assert ":" in caught.value.where.rsplit("/", 1)[1]


@_PACKINGS
def test_other_bytes_behind_the_data(write_bytes, pack, packing: str):
    with pytest.raises(DataError, match="data is damaged here or close behind"):
        _read(write_bytes(f"a.txt{packing}", pack(b"x", packing) + b"more text"))


@_PACKINGS
def test_bombs_are_refused_before_they_unfold(write_bytes, pack, monkeypatch, packing: str):
    path = write_bytes(f"a.txt{packing}", pack(bytes(4 << 20), packing))
    assert len(_read(path)) == 4 << 20  # a small file of zeros does no harm
    monkeypatch.setattr(compressed, "FREE_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r":1: .* packed bytes have become .*500 times") as caught:
        _read(path)
    assert caught.value.mend == "If you trust the file, unpack it and name the unpacked file."


def test_copies_of_rows_are_no_bomb(write_bytes, pack, monkeypatch):
    monkeypatch.setattr(compressed, "FREE_BYTES", 1 << 10)
    rows = random.Random(3).randbytes(2_000) * 200
    assert _read(write_bytes("a.txt.zst", pack(rows, ".zst"))) == rows


def test_zstandard_is_named_where_it_is_missing(write_bytes, pack, monkeypatch):
    path = write_bytes("a.txt.zst", pack(b"x", ".zst"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"reading \.zst files needs the package zstandard"):
        open_unpacked(path)
