"""A JSON file that holds one list of rows.

The list is decoded element by element, so that each row has the line on which it starts, and an
error names the row that it stands in. One broken element ends the reading whatever `on_bad_row`
says: behind it nobody can tell where the next row begins (in a jsonl file one can).

The text goes through a window, and what looks broken at the window's end may only be cut there: it
is reported once the window holds enough to be sure.
"""

from __future__ import annotations

from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow, RowError
from luthier.corpus.readers.raw_file import empty_error, open_data_file
from luthier.corpus.readers.strict_json import NUMBER_TOO_LONG, TOO_DEEP, StrictDecoder, as_row
from luthier.corpus.readers.text_window import TextWindow

_WRAP = 'Put the rows into one list: [{"instruction": ...}, {"instruction": ...}]'
_EXCERPT_CHARS = 20
_SEEN_AHEAD = 16
"""The decoder looks no further than this behind the place of which it complains; the longest thing
that it takes as a whole is an escaped surrogate pair, 12 characters."""


def read_json_array(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield the rows of a JSON list, each with its row number and the line it starts on.

    Args:
        path: The file.
        on_bad_row: Called with each element that is no usable row.

    Raises:
        DataError: The file can't be read, is not UTF-8, is not one whole JSON list, or has an
            element that is longer than a row may be.
    """
    row = earlier_line = -1
    with open_data_file(path) as stream:
        window = TextWindow(path, stream)
        for row, (line, end, value, amiss) in enumerate(_elements(path, window)):
            # A line that holds several rows tells them not apart: then the row's number does.
            origin = Origin(str(path), row, line if line != earlier_line else None)
            earlier_line = line
            try:
                found = as_row(value, amiss)
            except RowError as error:
                on_bad_row(error.rejection(origin, window.text[window.at : end]))
                continue
            yield origin, found
    if row < 0:
        raise empty_error(path, "the list is empty")


def _elements(path: Path, window: TextWindow) -> Iterator[tuple[int, int, Any, RowError | None]]:
    """Yield (line, end, value, what is amiss) of each element, with the cursor at its start."""
    _open_list(path, window)
    decoder = StrictDecoder()
    row = 0
    is_closed = window.peek(1) == "]"
    while not is_closed:
        try:
            value, end, amiss = _decode(window, decoder)
        except JSONDecodeError as error:
            raise _broken_element(path, window, row, error) from error
        yield window.line_at(window.at), end, value, amiss
        window.at = end
        window.skip_space()
        is_closed = window.text.startswith("]", window.at)
        if not is_closed:
            if not window.text.startswith(",", window.at):
                raise _broken_list(path, window, row)
            window.at += 1
            window.skip_space()
            row += 1
    window.at += 1
    window.skip_space()
    if rest := window.peek(_EXCERPT_CHARS):
        raise DataError(
            f"text after the end of the list: {rest!r}",
            where=f"{path}:{window.line_at(window.at)}",
            mend="A json file holds one list: join the lists, or remove what stands behind it.",
        )


def _open_list(path: Path, window: TextWindow) -> None:
    """Move the cursor behind the bracket that opens the list, and white space."""
    window.skip_space()
    first = window.peek(1)
    if not first:
        raise empty_error(path)
    if first != "[":
        raise _not_a_list(path, window)
    window.at += 1
    window.skip_space()


def _decode(
    window: TextWindow, decoder: StrictDecoder, what: str = "the row that starts on this line"
) -> tuple[Any, int, RowError | None]:
    """Decode the value at the cursor, with as large a window as it takes.

    Raises:
        JSONDecodeError: There is no whole value, and what follows would not make it one.
        DataError: The value is longer than a row may be.
    """
    while True:
        try:
            value, end, amiss = decoder.decode_at(window.text, window.at)
        except JSONDecodeError as error:
            if window.is_last or _is_certain(error):
                raise
        else:
            # A number or a word may go on behind the window, unlike what a sign closes.
            is_closed = window.text[window.at] in '{["'
            if is_closed or window.is_last or end + _SEEN_AHEAD <= len(window.text):
                return value, end, amiss
        window.grow(what)


def _is_certain(error: JSONDecodeError) -> bool:
    """Return whether an error stays, whatever follows the text in which it was found."""
    if error.msg == TOO_DEEP:
        return True
    if error.msg == NUMBER_TOO_LONG:  # with a point or an exponent further on it would do
        return error.doc[-1] not in "0123456789.eE+-"
    if error.msg.startswith("Unterminated string"):
        return False
    # White space alone may be all that is left of a file that was cut.
    is_inside = error.pos + _SEEN_AHEAD <= len(error.doc)
    return is_inside and not error.doc[error.pos :].isspace()


def _where(path: Path, window: TextWindow, position: int) -> str:
    return f"{path}:{window.line_at(position)}"


def _broken_list(path: Path, window: TextWindow, row: int) -> DataError:
    """Build the error for an element that no comma or bracket follows."""
    rest = window.peek(_EXCERPT_CHARS)
    where = _where(path, window, window.at)
    if not rest:
        return DataError(
            f"the file ends after row {row}: the list is never closed",
            where=where,
            mend="Write or download the file again: it was cut off; or close the list with ].",
        )
    return DataError(
        f"a comma or ] is missing after row {row}, before {rest!r}",
        where=where,
        mend="Put a comma between rows and ] after the last one.",
    )


def _broken_element(path: Path, window: TextWindow, row: int, error: JSONDecodeError) -> DataError:
    line = window.line_at(window.at)
    if window.text.startswith("]", window.at):
        return DataError(
            "a comma stands before the ] that closes the list",
            where=f"{path}:{line}",
            mend="Remove the comma after the last row.",
        )
    # An unfinished string is placed at its opening quote, any other cut at the end.
    filled = len(window.text.rstrip())
    is_cut = max(window.at, error.pos) >= filled or error.msg.startswith("Unterminated string")
    if window.is_last and is_cut:
        return DataError(
            f"the file ends in the middle of row {row}, which starts on line {line}",
            where=f"{path}:{window.filled_line()}",
            mend="Write or download the file again: it was cut off.",
        )
    return DataError(
        f"row {row}, which starts on line {line}, is not valid JSON: "
        f"{error.msg} at column {window.column_at(error.pos)}",
        where=_where(path, window, error.pos),
        mend="Mend this place. In a jsonl file (one row a line) bad rows can be skipped.",
    )


def _not_a_list(path: Path, window: TextWindow) -> DataError:
    """Build the error for a file that is something other than a list."""
    where = _where(path, window, window.at)
    try:
        value, end, _ = _decode(
            window, StrictDecoder(), "the file is no list of rows, and the value that starts here"
        )
    except JSONDecodeError as error:
        return DataError(
            f"the file is not JSON: {error.msg} at column {window.column_at(error.pos)}",
            where=_where(path, window, error.pos),
            mend=f"{_WRAP}; or name the file by what it holds (.jsonl, .csv, .parquet).",
        )
    if not isinstance(value, dict):
        return DataError("the file is a single value, not a list of rows", where=where, mend=_WRAP)
    window.at = end
    window.skip_space()
    if window.peek(1):
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
