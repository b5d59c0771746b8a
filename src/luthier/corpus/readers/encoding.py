"""Bytes that are not UTF-8: what they probably are, and the error that says so.

In: bytes, and where they stand. Out: a `DataError` that names line, byte, probable encoding and
the command that converts the file. It never decodes by guess: a wrong guess would train on noise.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from luthier.core.errors import DataError
from luthier.corpus.readers.compressed import open_unpacked, split_suffix

_SAMPLE_BYTES = 1 << 20
_NEAR_BYTES = 1 << 10
_MAX_FOREIGN = 5_000
_BOMS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

_ZEROS = {"x000": "utf-32le", "000x": "utf-32be", "x0x0": "utf-16le", "0x0x": "utf-16be"}


def wide_encoding(head: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 that a file's first bytes give away, or None.

    Args:
        head: The first four bytes or more.
    """
    for mark, codec in _BOMS:
        if head.startswith(mark):
            return codec
    # Data files begin with an ASCII character ([, {, a letter, a quote, a space).
    zeros = "".join("0" if byte == 0 else "x" for byte in head[:4])
    return _ZEROS.get(zeros)


def line_of(data: bytes, position: int) -> int:
    """Return the line of a byte, from 1."""
    return data.count(b"\n", 0, position) + 1


def byte_in_line(data: bytes, position: int) -> int:
    """Return the place of a byte in its line, from 1."""
    return position - data.rfind(b"\n", 0, position)


def guess_encoding(data: bytes) -> str | None:
    """Return the encoding, by the name that iconv knows, that data which isn't UTF-8 probably has.

    A codec counts as right where most of what it makes of the non-ASCII bytes is everyday text:
    random bytes decode as some Chinese character too, but rarely as a common one.
    """
    best, best_share = None, 0.5
    for codec, is_common in _CANDIDATES:
        text = data.decode(codec, "replace")
        foreign = [char for char in text if char > "\x7f"][:_MAX_FOREIGN]
        share = sum(map(is_common, foreign)) / len(foreign) if foreign else 0.0
        if share > best_share:
            best, best_share = codec, share
    return best


def encoding_error(
    path: Path, line: int, error: UnicodeDecodeError, *, num_before: int = 0
) -> DataError:
    """Build the error for bytes that are not UTF-8.

    Args:
        path: The file.
        line: Line of the first bad byte, from 1.
        error: What the UTF-8 codec said of the line or of a part of the file.
        num_before: Bytes of this line that stand before that part.
    """
    with open_unpacked(path) as stream:
        sample = stream.read(_SAMPLE_BYTES)
    near = error.object[max(0, error.start - _NEAR_BYTES) : error.start + _NEAR_BYTES]
    if near not in sample:
        sample += near
    byte = byte_in_line(error.object, error.start) + num_before
    where = f"{path}:{line}"
    if _is_mostly_utf8(sample):
        return DataError(
            f"byte {byte} of this line is not UTF-8, though most of the file is",
            where=where,
            mend="Write this line again as UTF-8; `iconv -f utf-8 -t utf-8` finds such places.",
        )
    codec = guess_encoding(sample)
    guess = f", it is probably {codec.upper()}" if codec else ""
    return DataError(
        f"the file is not UTF-8 (first at byte {byte} of this line){guess}",
        where=where,
        mend=convert_mend(path, codec),
    )


def convert_mend(path: Path, codec: str | None) -> str:
    """Return the instruction that converts a file to UTF-8."""
    kind, packing = split_suffix(path)
    stem = str(path)[: len(str(path)) - len(kind + packing)]
    ending = str(path)[len(stem) :]
    source, target = shlex.quote(str(path)), shlex.quote(f"{stem}.utf8{ending}")
    convert = f"iconv -f {codec or 'ITS_ENCODING'} -t utf-8"
    if packing:
        tool = "gzip" if packing == ".gz" else "zstd"
        return f"Convert it: {tool} -dc {source} | {convert} | {tool} > {target}"
    return f"Convert it: {convert} {source} > {target}"


def _is_mostly_utf8(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    num_bad = text.count("\ufffd")
    num_foreign = sum(char > "\x7f" for char in text) - num_bad
    return num_foreign > 10 * num_bad


def _in_table(codec: str, leads: range) -> Callable[[str], bool]:
    """Return a test for the characters whose first byte in `codec` is one of `leads`."""

    def is_common(char: str) -> bool:
        coded = char.encode(codec, "ignore")
        return len(coded) == 2 and coded[0] in leads

    return is_common


def _is_kana(char: str) -> bool:
    return "\u3040" <= char <= "\u30ff"


def _is_letter_or_sign(char: str) -> bool:
    return char.isalpha() or char in "‘’“”–—…€£°´«»"


# Lead bytes of the punctuation rows and of the commonest characters ("level 1") of each table.
_CANDIDATES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("gbk", _in_table("gb2312", range(0xB0, 0xD8))),
    ("gb18030", _in_table("gb2312", range(0xB0, 0xD8))),
    ("big5", _in_table("big5", range(0xA4, 0xC7))),
    ("shift_jis", _is_kana),
    ("windows-1252", _is_letter_or_sign),
)
