"""The text of a file through a window: memory holds the row that is being read, not the file.

In: the bytes of a file. Out: the text from a cursor on, as far as it has been asked for. The
window grows geometrically, so that a row of any length is searched a few times and not once a
piece; what lies before the cursor is dropped each time it grows. It refuses what `raw_file` does,
and a value that is longer than a row may be.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from luthier.corpus.readers.raw_file import (
    MAX_ROW_BYTES,
    UTF8_BOM,
    check_width,
    decode_part,
    too_long_error,
)

_READ_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


class TextWindow:
    """A cursor in the text of a file.

    Args:
        path: The file, for messages.
        stream: Its bytes, from the start.

    Attributes:
        text: The text that is held.
        at: The cursor, as a position in `text`.
        is_last: The file ends where `text` ends.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.text = ""
        self.at = 0
        self.is_last = False
        self._path = path
        self._stream = stream
        # The line of the character at `_counted`, and how much of its line was dropped.
        self._line, self._counted, self._num_dropped = 1, 0, 0
        # Where the bytes that were read end: line, bytes of it, and those of a cut character.
        self._read_line, self._read_bytes, self._cut = 1, 0, b""
        self._is_first = True
        # The line on which the white space begins that last went beyond the window.
        self._space_line = 1

    def grow(self, what: str = "the row that starts on this line") -> None:
        """Drop the text before the cursor, and read as much again as is left, or more.

        Args:
            what: What stands at the cursor, for the message.

        Raises:
            DataError: It is too long, or the bytes that follow are no text.
        """
        line = self.line_at(self.at)
        self._num_dropped = self.column_at(self.at) - 1
        self._line, self._counted = line, 0
        held = self.text[self.at :]
        self.text, self.at = held, 0
        left = MAX_ROW_BYTES - len(held)
        if left <= 0:
            raise too_long_error(
                what,
                f"{self._path}:{line}",
                "Look for a quote or bracket that opens here and is never closed; "
                "part rows that are longer.",
            )
        self.text = held + self._read(min(left, max(_READ_BYTES, len(held))))

    def skip_space(self) -> None:
        """Move the cursor to the next character that isn't white space, or to the file's end."""
        start = self.at
        found = _SPACE.match(self.text, start)
        self.at = found.end() if found else start
        if self.at == len(self.text) and not self.is_last:
            self._skip_far(start)

    def _skip_far(self, start: int) -> None:
        """Go on skipping behind the end of the window."""
        self._space_line = self.line_at(start)
        while self.at == len(self.text) and not self.is_last:
            self.grow()
            found = _SPACE.match(self.text)
            self.at = found.end() if found else 0

    def peek(self, num_chars: int) -> str:
        """Return the characters at the cursor, so many as there are up to a number."""
        while self.at + num_chars > len(self.text) and not self.is_last:
            self.grow()
        return self.text[self.at : self.at + num_chars]

    def line_at(self, position: int) -> int:
        """Return the line of the file, from 1, on which a position of `text` stands."""
        if position < self._counted:
            return self._line - self.text.count("\n", position, self._counted)
        self._line += self.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def filled_line(self) -> int:
        """Return the line on which the last character that isn't white space stands."""
        filled = len(self.text.rstrip())
        # Only white space makes the window drop all that it held.
        return self.line_at(filled) if filled else self._space_line

    def column_at(self, position: int) -> int:
        """Return the place of a position of `text` in its line, in characters from 1."""
        line_end = self.text.rfind("\n", 0, position)
        return position - line_end + (self._num_dropped if line_end < 0 else 0)

    def _read(self, num_bytes: int) -> str:
        data = self._stream.read(num_bytes)
        self.is_last = len(data) < num_bytes
        if self._is_first:
            self._is_first = False
            check_width(self._path, data[:4])
            data = data.removeprefix(UTF8_BOM)
        data = self._cut + data
        text, used = decode_part(
            self._path,
            data,
            line=self._read_line,
            num_before=self._read_bytes,
            is_last=self.is_last,
        )
        line_end = data.rfind(b"\n", 0, used)
        self._read_bytes = used - line_end - 1 + (self._read_bytes if line_end < 0 else 0)
        self._read_line += data.count(b"\n", 0, used)
        self._cut = data[used:]
        return text
