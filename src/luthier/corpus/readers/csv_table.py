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
    UTF8_BOM,
    check_width,
    decode_line,
    empty_error,
    open_data_file,
)

_FIELD_CHARS = 2**31 - 1
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
    taken: list[str] = []
    row = -1
    with open_data_file(path) as stream:
        lines = csv.reader(_decoded(path, stream, taken), strict=True)
        header: list[str] | None = None
        while True:
            taken.clear()
            line = lines.line_num + 1
            try:
                values = next(lines, None)
            except csv.Error as error:
                if header is None or "unexpected end" in str(error):
                    raise _broken(path, line, error) from error
                row += 1
                bad = RowError("not_csv", f"the row is not valid csv: {error}")
                on_bad_row(bad.rejection(Origin(str(path), row, line), "".join(taken)))
                continue
            if values is None:
                break
            if not values:
                continue
            if header is None:
                header = _checked_header(path, line, values)
                continue
            row += 1
            origin = Origin(str(path), row, line)
            if len(values) != len(header):
                bad = RowError("wrong_columns", _width_detail(values, header))
                on_bad_row(bad.rejection(origin, "".join(taken)))
                continue
            yield origin, dict(zip(header, values, strict=True))
    if row < 0:
        raise empty_error(path, "the file holds no row below its header")


def _decoded(path: Path, stream: BinaryIO, taken: list[str]) -> Iterator[str]:
    """Yield the lines as text, and note them in `taken` for the account of bad rows."""
    for line, raw in enumerate(stream, 1):
        if line == 1:
            check_width(path, raw[:4])
            raw = raw.removeprefix(UTF8_BOM)
        try:
            text = decode_line(path, line, raw)
        except RowError as error:
            raise error.data_error(Origin(str(path), 0, line)) from error
        taken.append(text)
        yield text


def _broken(path: Path, line: int, error: csv.Error) -> DataError:
    if "unexpected end" in str(error):
        return DataError(
            "a quote that opens in the row that starts here is never closed",
            where=f"{path}:{line}",
            mend='Close it, or double the quote if it is part of the text (""like this"").',
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


def _width_detail(values: list[str], header: list[str]) -> str:
    return f"{len(values)} values for {len(header)} columns ({', '.join(header)})"
