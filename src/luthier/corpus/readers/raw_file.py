"""The bytes of a data file, once it is sure that there are some and that they are UTF-8 text.

In: a path. Out: an open file, its lines, or decoded text; unpacked where the file is compressed.
Refuses folders, pipes, empty files, other encodings, zero bytes and lines without end, each with
the reason and the mend.
"""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from luthier.core.errors import DataError
from luthier.corpus.bad_rows import MENDS, RowError
from luthier.corpus.readers.compressed import open_unpacked
from luthier.corpus.readers.encoding import (
    byte_in_line,
    convert_mend,
    encoding_error,
    line_of,
    wide_encoding,
)

UTF8_BOM = b"\xef\xbb\xbf"
MAX_ROW_BYTES = 256 << 20
"""A longer row is no training text (it is some 60 million tokens): a line end, quote or bracket is
missing. Decoding it would take a few times as much memory."""
_PIECE_BYTES = 1 << 20


def open_data_file(path: Path) -> BinaryIO:
    """Open a file for reading bytes, unpacked where its name ends in .gz or .zst.

    Raises:
        DataError: It is missing, a folder, not an ordinary file, empty, not packed as its name
            says, or can't be read.
        MissingExtraError: It is .zst, and zstandard is not installed.
    """
    check_data_file(path)
    try:
        return open_unpacked(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def check_data_file(path: Path) -> None:
    """Refuse what is no file with data, before anything opens it.

    Raises:
        DataError: It is missing, a folder, not an ordinary file, or empty.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(
            "this is a folder, a file is needed",
            where=str(path),
            mend="Name a file in it.",
        )
    # Opening a pipe would wait for ever; a device never ends.
    if not stat.S_ISREG(status.st_mode):
        raise DataError(
            "this is a pipe or a device, not an ordinary file",
            where=str(path),
            mend="Write the data to a file first: it is read more than once.",
        )
    if status.st_size == 0:
        raise empty_error(path)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"the file can't be read: {error.strerror or error}",
        where=str(path),
        mend="Check the path and its permissions.",
    )


def empty_error(path: Path, what: str = "the file is empty") -> DataError:
    """Build the error for a file without a single row."""
    return DataError(
        what,
        where=str(path),
        mend="Write or download it again, or take it out of the list of files.",
    )


def check_width(path: Path, head: bytes) -> None:
    """Refuse UTF-16 and UTF-32, which pass for text with zero bytes.

    Args:
        path: The file.
        head: Its first bytes, four or more where it has them.

    Raises:
        DataError: The bytes are those of a wide encoding.
    """
    codec = wide_encoding(head)
    if codec is not None:
        raise DataError(
            f"the file is not UTF-8, it is probably {codec.upper()}",
            where=f"{path}:1",
            mend=convert_mend(path, codec),
        )


def read_text(path: Path) -> str:
    """Return the text of a whole file, without a byte order mark.

    Raises:
        DataError: The file can't be read, is not UTF-8, holds zero bytes, or ends in the middle
            of a character.
    """
    with open_data_file(path) as stream:
        data = stream.read()
    check_width(path, data[:4])
    return decode_part(path, data.removeprefix(UTF8_BOM))[0]


def decode_part(
    path: Path, data: bytes, *, line: int = 1, num_before: int = 0, is_last: bool = True
) -> tuple[str, int]:
    """Return the text of a part of a file, and the number of bytes that it was made of.

    Args:
        path: The file, for the message.
        data: The part; unless it is the last one, its end may cut a character.
        line: The line on which the part starts.
        num_before: Bytes of that line that stand before the part.
        is_last: Nothing follows the part.

    Raises:
        DataError: The part is not UTF-8, holds zero bytes, or is the last one and ends in the
            middle of a character.
    """
    zero = data.find(b"\0")
    if zero >= 0:
        before = 0 if b"\n" in data[:zero] else num_before
        raise DataError(
            f"zero bytes at byte {byte_in_line(data, zero) + before} of this line",
            where=f"{path}:{line - 1 + line_of(data, zero)}",
            mend=f"{MENDS['nul_bytes']}.",
        )
    try:
        return codecs.utf_8_decode(data, "strict", is_last)
    except UnicodeDecodeError as error:
        before = 0 if b"\n" in data[: error.start] else num_before
        line += line_of(data, error.start) - 1
        if ends_in_a_character(error):
            raise DataError(
                "the file ends in the middle of a character",
                where=f"{path}:{line}",
                mend=f"{MENDS['truncated']}.",
            ) from error
        raise encoding_error(path, line, error, num_before=before) from error


def lines_of(path: Path, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, from 1; the first one without a byte order mark.

    Args:
        path: The file, for the message.
        stream: Its bytes, from the start.

    Raises:
        DataError: The encoding is a wide one, or a line is longer than `MAX_ROW_BYTES`.
    """
    line = 0
    while raw := stream.readline(_PIECE_BYTES):
        line += 1
        if line == 1:
            check_width(path, raw[:4])
            raw = raw.removeprefix(UTF8_BOM)
        if not raw.endswith(b"\n"):
            raw = _whole_line(path, line, stream, raw)
        yield line, raw


def _whole_line(path: Path, line: int, stream: BinaryIO, begun: bytes) -> bytes:
    pieces, num_bytes = [begun], len(begun)
    while not pieces[-1].endswith(b"\n") and (piece := stream.readline(_PIECE_BYTES)):
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > MAX_ROW_BYTES:
            raise too_long_error("this line", f"{path}:{line}")
    return b"".join(pieces)


def too_long_error(what: str, where: str, mend: str | None = None) -> DataError:
    """Build the error for a row that is longer than `MAX_ROW_BYTES`.

    Args:
        what: What is too long, as the subject of a sentence.
        where: File and line on which it starts.
        mend: Where there is a better one than to look for missing line ends.
    """
    return DataError(
        f"{what} is longer than {MAX_ROW_BYTES:,} bytes",
        where=where,
        mend=mend or "Put each row on a line of its own, and part rows that are longer.",
    )


def decode_line(path: Path, line: int, raw: bytes) -> str:
    """Return the text of one line.

    Args:
        path: The file, for the message.
        line: Number of the line, from 1.
        raw: Its bytes, with the line end where there is one.

    Raises:
        DataError: The line is not UTF-8.
        RowError: The line holds zero bytes, or is the last one and ends in half a character.
    """
    zero = raw.find(b"\0")
    if zero >= 0:
        raise RowError("nul_bytes", f"zero bytes at byte {zero + 1} of the line")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if ends_in_a_character(error):
            raise RowError("truncated", "the file ends in the middle of this row") from error
        raise encoding_error(path, line, error) from error


def ends_in_a_character(error: UnicodeDecodeError) -> bool:
    """Return whether the only damage is that the bytes stop within a character."""
    return error.reason == "unexpected end of data" and error.end == len(error.object)
