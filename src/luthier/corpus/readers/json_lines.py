"""A file with one JSON object a line.

Each line is decoded by orjson, which is fast and lets two things pass in silence: a key that
stands twice, and nothing else that matters here. What orjson refuses is decoded once more by the
strict decoder, whose business is to say why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import orjson

from luthier.contracts.conversation import Origin
from luthier.corpus.bad_rows import OnBadRow, RowError
from luthier.corpus.readers.raw_file import decode_line, empty_error, lines_of, open_data_file
from luthier.corpus.readers.strict_json import StrictDecoder, as_row, count_keys

# A quote and a colon: at each key, and at times within a text (\": there). So an equal count of
# these and of the decoded keys proves that no key was lost.
_KEY_END = re.compile(rb'"\s*:')


def read_json_lines(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield the row of each line that isn't blank.

    Args:
        path: The file.
        on_bad_row: Called with each line that is no usable row.

    Raises:
        DataError: The file can't be read, is not UTF-8, has a line without end, or
            holds nothing but blank lines.
    """
    row = -1
    with open_data_file(path) as stream:
        for line, raw in lines_of(path, stream):
            if not raw.strip():
                continue
            row += 1
            origin = Origin(str(path), row, line)
            try:
                found = _parse(path, line, raw)
            except RowError as error:
                on_bad_row(error.rejection(origin, raw.decode("utf-8", "backslashreplace")))
                continue
            yield origin, found
    if row < 0:
        raise empty_error(path, "the file holds nothing but blank lines")


def _parse(path: Path, line: int, raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _parse_strictly(path, line, raw, str(error))
    if len(_KEY_END.findall(raw)) != count_keys(value):
        return _parse_strictly(path, line, raw, "")
    return as_row(value, None)


def _parse_strictly(path: Path, line: int, raw: bytes, refusal: str) -> dict[str, Any]:
    """Decode a line again to learn what is amiss with it.

    Args:
        path: The file.
        line: Number of the line.
        raw: Its bytes.
        refusal: What orjson said of it; empty where orjson took it.
    """
    text = decode_line(path, line, raw).strip()
    try:
        value, end, amiss = StrictDecoder().decode_at(text, 0)
    except JSONDecodeError as error:
        is_cut = not raw.endswith(b"\n") and text.startswith("{") and not text.endswith("}")
        if is_cut:
            raise RowError("truncated", "the file ends in the middle of this row") from error
        raise RowError(
            "not_json", f"the line is not valid JSON: {error.msg} at column {error.colno}"
        ) from error
    if end < len(text):
        raise RowError("not_json", f"text after the end of the object: {text[end : end + 20]!r}")
    if refusal and amiss is None:
        raise RowError("not_json", f"the line is not valid JSON: {refusal}")
    return as_row(value, amiss)
