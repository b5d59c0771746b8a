"""A JSON file that holds one list of rows.

The list is decoded element by element, so that each row has the line on which it starts, and an
error names the row that it stands in. One broken element ends the reading whatever `on_bad_row`
says: behind it nobody can tell where the next row begins (in a jsonl file one can).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow, RowError
from luthier.corpus.readers.raw_file import empty_error, read_text
from luthier.corpus.readers.strict_json import StrictDecoder, as_row

_SPACE = re.compile(r"[ \t\r\n]*")
_WRAP = 'Put the rows into one list: [{"instruction": ...}, {"instruction": ...}]'


def read_json_array(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield the rows of a JSON list, each with its row number and the line it starts on.

    Args:
        path: The file.
        on_bad_row: Called with each element that is no usable row.

    Raises:
        DataError: The file can't be read, is not UTF-8, or is not one whole JSON list.
    """
    text = read_text(path)
    start = _skip_space(text, 0)
    if start == len(text):
        raise empty_error(path)
    if text[start] != "[":
        raise _not_a_list(path, text, start)
    row = earlier_line = -1
    for row, (line, begin, end, value, amiss) in enumerate(_elements(path, text, start + 1)):
        # A line that holds several rows tells them not apart: then the row's number does.
        origin = Origin(str(path), row, line if line != earlier_line else None)
        earlier_line = line
        try:
            found = as_row(value, amiss)
        except RowError as error:
            on_bad_row(error.rejection(origin, text[begin:end]))
            continue
        yield origin, found
    if row < 0:
        raise empty_error(path, "the list is empty")


def _elements(
    path: Path, text: str, at: int
) -> Iterator[tuple[int, int, int, Any, RowError | None]]:
    """Yield (line, start, end, value, what is amiss) of each element of the list."""
    decoder = StrictDecoder()
    line, counted, row = 1, 0, 0
    at = _skip_space(text, at)
    if text.startswith("]", at):
        _expect_end(path, text, at + 1)
        return
    while True:
        line += text.count("\n", counted, at)
        counted = at
        try:
            value, end, amiss = decoder.decode_at(text, at)
        except JSONDecodeError as error:
            raise _broken_element(path, text, row, line, at, error) from error
        yield line, at, end, value, amiss
        at = _skip_space(text, end)
        if text.startswith("]", at):
            _expect_end(path, text, at + 1)
            return
        if not text.startswith(",", at):
            raise _broken_list(path, text, at, row)
        at = _skip_space(text, at + 1)
        row += 1


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _expect_end(path: Path, text: str, at: int) -> None:
    at = _skip_space(text, at)
    if at < len(text):
        raise DataError(
            f"text after the end of the list: {text[at : at + 20]!r}",
            where=f"{path}:{_line_of(text, at)}",
            mend="A json file holds one list: join the lists, or remove what stands behind it.",
        )


def _broken_list(path: Path, text: str, at: int, row: int) -> DataError:
    """Build the error for an element that no comma or bracket follows."""
    where = f"{path}:{_line_of(text, at)}"
    if at >= len(text):
        return DataError(
            f"the file ends after row {row}: the list is never closed",
            where=where,
            mend="Write or download the file again: it was cut off; or close the list with ].",
        )
    return DataError(
        f"a comma or ] is missing after row {row}, before {text[at : at + 20]!r}",
        where=where,
        mend="Put a comma between rows and ] after the last one.",
    )


def _broken_element(
    path: Path, text: str, row: int, line: int, at: int, error: JSONDecodeError
) -> DataError:
    if text.startswith("]", at):
        return DataError(
            "a comma stands before the ] that closes the list",
            where=f"{path}:{_line_of(text, at)}",
            mend="Remove the comma after the last row.",
        )
    # An unfinished string is placed at its opening quote, any other cut at the end.
    filled = len(text.rstrip())
    if max(at, error.pos) >= filled or error.msg.startswith("Unterminated string"):
        return DataError(
            f"the file ends in the middle of row {row}, which starts on line {line}",
            where=f"{path}:{_line_of(text, filled)}",
            mend="Write or download the file again: it was cut off.",
        )
    return DataError(
        f"row {row}, which starts on line {line}, is not valid JSON: "
        f"{error.msg} at column {error.colno}",
        where=f"{path}:{error.lineno}",
        mend="Mend this place. In a jsonl file (one row a line) bad rows can be skipped.",
    )


def _not_a_list(path: Path, text: str, start: int) -> DataError:
    """Build the error for a file that is something other than a list."""
    where = f"{path}:{_line_of(text, start)}"
    try:
        value, end, _ = StrictDecoder().decode_at(text, start)
    except JSONDecodeError as error:
        return DataError(
            f"the file is not JSON: {error.msg} at column {error.colno}",
            where=f"{path}:{error.lineno}",
            mend=f"{_WRAP}; or name the file by what it holds (.jsonl, .csv, .parquet).",
        )
    if not isinstance(value, dict):
        return DataError("the file is a single value, not a list of rows", where=where, mend=_WRAP)
    if _skip_space(text, end) < len(text):
        return DataError(
            "the file holds several objects one after another, not one list",
            where=where,
            mend=f"Make it one list: jq -s . {path.name} > rows.json",
        )
    lists = [key for key, held in cast(dict[str, Any], value).items() if isinstance(held, list)]
    mend = f"{_WRAP}."
    if lists:
        mend += f" If they stand under {lists[0]!r}: jq .{lists[0]} {path.name} > rows.json"
    return DataError("the file is a single object, not a list of rows", where=where, mend=mend)
