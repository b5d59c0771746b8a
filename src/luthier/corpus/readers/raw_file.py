"""The bytes of a data file, once it is sure that there are some and that they are UTF-8 text.

In: a path. Out: an open file, or decoded text. Refuses folders, pipes, empty files, other
encodings and zero bytes, each with the reason and the mend.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

from luthier.core.errors import DataError
from luthier.corpus.bad_rows import MENDS, RowError
from luthier.corpus.readers.encoding import (
    byte_in_line,
    convert_mend,
    encoding_error,
    line_of,
    wide_encoding,
)

UTF8_BOM = b"\xef\xbb\xbf"


def open_data_file(path: Path) -> BinaryIO:
    """Open a file for reading bytes.

    Raises:
        DataError: It is missing, a folder, not an ordinary file, empty, or can't be read.
    """
    try:
        status = path.stat()
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
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"the file can't be read: {error.strerror or error}",
            where=str(path),
            mend="Check the path and its permissions.",
        ) from error


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
    data = data.removeprefix(UTF8_BOM)
    zero = data.find(b"\0")
    if zero >= 0:
        raise DataError(
            f"zero bytes at byte {byte_in_line(data, zero)} of this line",
            where=f"{path}:{line_of(data, zero)}",
            mend=f"{MENDS['nul_bytes']}.",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = line_of(data, error.start)
        if ends_in_a_character(error):
            raise DataError(
                "the file ends in the middle of a character",
                where=f"{path}:{line}",
                mend=f"{MENDS['truncated']}.",
            ) from error
        raise encoding_error(path, line, error) from error


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
