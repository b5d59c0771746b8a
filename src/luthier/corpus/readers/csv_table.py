"""A csv file with a header line: each row becomes an object of texts.

Values hold line ends in csv, so rows are not lines: an encoding that breaks, or a quote that is
never closed, ends the reading whatever `on_bad_row` says.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow, RowError
from luthier.corpus.readers.raw_file import (
    MAX_ROW_BYTES,
    decode_line,
    empty_error,
    lines_of,
    open_data_file,
    too_long_error,
)

_FIELD_CHARS = 2**31 - 1
_CLOSE = 'Close the quote, or double it if it is part of the text (""like this"").'
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield each row of a comma-separated file, with the line on which it starts.

    Args:
        path: The file; its first row names the columns.
        on_bad_row: Called with each row that has another number of values than there are columns.

    Raises:
        DataError: The file can't be read, is not UTF-8, has no usable header, no rows, or a quote
            that is never closed.
    """
    # The default limit of 131,072 characters is less than a long answer. It is one number for
    # the whole process: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_CHARS))
    row = -1
    with open_data_file(path) as stream:
        lines = _Lines(path, stream)
        table = csv.reader(lines, strict=True)
        header = _read_header(path, lines, table)
        while True:
            line = lines.start_row()
            try:
                values = next(table, None)
                if values is None:
                    break
                if not values:
                    continue
                row += 1
                found = _as_row(header, values)
            except csv.Error as error:
                row += 1
                bad = _bad_row(path, line, error)
            except RowError as error:
                bad = error
            else:
                yield Origin(str(path), row, line), found
                continue
            on_bad_row(bad.rejection(Origin(str(path), row, line), lines.text()))
    if row < 0:
        raise empty_error(path, "the file holds no row below its header")


class _Lines:
    """The lines of a file as text, and those among them that the current row has taken."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._lines = lines_of(path, stream)
        self._line = 0
        self._row_line = 1
        self._num_bytes = 0
        self._taken: list[str] = []

    def start_row(self) -> int:
        """Forget what was taken, and return the line on which the next row starts."""
        self._taken.clear()
        self._num_bytes = 0
        self._row_line = self._line + 1
        return self._row_line

    def text(self) -> str:
        """Return what the current row has taken, for the account of bad rows."""
        return "".join(self._taken)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self._line, raw = next(self._lines)
        self._num_bytes += len(raw)
        if self._num_bytes > MAX_ROW_BYTES:
            where = f"{self._path}:{self._row_line}"
            raise too_long_error("the row that starts here", where, _CLOSE)
        try:
            text = decode_line(self._path, self._line, raw)
        except RowError as error:
            raise error.data_error(Origin(str(self._path), 0, self._line)) from error
        self._taken.append(text)
        return text


def _read_header(path: Path, lines: _Lines, table: Iterator[list[str]]) -> list[str]:
    """Return the names of the columns, or nothing where the file has no filled line."""
    while True:
        line = lines.start_row()
        try:
            values = next(table, None)
        except csv.Error as error:
            raise _broken(path, line, error) from error
        if values is None:
            return []
        if values:
            return _checked_header(path, line, values)


def _as_row(header: list[str], values: list[str]) -> dict[str, Any]:
    if len(values) != len(header):
        names = ", ".join(header)
        raise RowError("wrong_columns", f"{len(values)} values for {len(header)} columns ({names})")
    return dict(zip(header, values, strict=True))


def _bad_row(path: Path, line: int, error: csv.Error) -> RowError:
    """Return what is wrong with one row, or raise where it takes in all that follows."""
    if _is_open_quote(error):
        raise _broken(path, line, error) from error
    return RowError("not_csv", f"the row is not valid csv: {error}")


def _is_open_quote(error: csv.Error) -> bool:
    return "unexpected end" in str(error)


def _broken(path: Path, line: int, error: csv.Error) -> DataError:
    if _is_open_quote(error):
        return DataError(
            "a quote that opens in the row that starts here is never closed",
            where=f"{path}:{line}",
            mend=_CLOSE,
        )
    return DataError(
        f"the header is not valid csv: {error}",
        where=f"{path}:{line}",
        mend="Name the columns in the first line, with commas between them.",
    )


def _checked_header(path: Path, line: int, header: list[str]) -> list[str]:
    where = f"{path}:{line}"
    names = [name.strip() for name in header]
    if len(names) == 1:
        for delimiter, called in _OTHER_DELIMITERS.items():
            if delimiter in names[0]:
                raise DataError(
                    f"the columns seem to be parted by {called}: {names[0]!r}",
                    where=where,
                    mend="Save the table with commas between the columns.",
                )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"the column {twice[0]!r} stands twice in the header",
            where=where,
            mend="Give each column a name of its own.",
        )
    if "" in names:
        raise DataError(
            f"column {names.index('') + 1} has no name",
            where=where,
            mend="Name it in the first line, or remove the column.",
        )
    return names
