"""The reader of each kind of file, chosen by the file's suffix and, for JSON, by its content."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow
from luthier.corpus.readers.csv_table import read_csv
from luthier.corpus.readers.hub import read_hub
from luthier.corpus.readers.json_array import read_json_array
from luthier.corpus.readers.json_lines import read_json_lines
from luthier.corpus.readers.parquet_table import read_parquet
from luthier.corpus.readers.raw_file import UTF8_BOM, open_data_file
from luthier.corpus.readers.source import Source

Rows = Iterator[tuple[Origin, dict[str, Any]]]


def read_source(source: Source, on_bad_row: OnBadRow) -> Rows:
    """Yield the rows of a source in their order.

    Args:
        source: A file or a hub name.
        on_bad_row: Called with each row that can't be delivered.

    Raises:
        DataError: The source is damaged as a whole, or of a kind that isn't known.
    """
    if source.path is None:
        return read_hub(source)
    return read_rows(source.path, on_bad_row)


def read_rows(path: Path, on_bad_row: OnBadRow) -> Rows:
    """Yield the rows of a file in their order; see `read_source`."""
    check_kind(path)
    return READERS[path.suffix.lower()](path, on_bad_row)


def is_data_file(path: Path) -> bool:
    """Return whether the name is that of a kind of file that can be read."""
    return path.suffix.lower() in READERS


def check_kind(path: Path) -> None:
    """Refuse a file of unknown kind by its name alone.

    Raises:
        DataError: No reader knows the suffix.
    """
    if is_data_file(path):
        return
    packed = path.suffix.lower() in {".gz", ".zst", ".zip", ".xz", ".bz2"}
    raise DataError(
        f"files of the kind {path.suffix or 'without suffix'} can't be read",
        where=str(path),
        mend="Unpack it first." if packed else f"Known: {', '.join(READERS)}.",
    )


def read_json(path: Path, on_bad_row: OnBadRow) -> Rows:
    """Read a list of objects or one object a line, whichever the file holds.

    Both are found under both names (.json, .jsonl), and `datasets` reads both: so the first
    characters decide. A lone object is a row in a .jsonl file, and in a .json file it is one
    object where a list should be.
    """
    if _holds_lines(path):
        return read_json_lines(path, on_bad_row)
    return read_json_array(path, on_bad_row)


def _holds_lines(path: Path) -> bool:
    is_lines_by_name = path.suffix.lower() != ".json"
    with open_data_file(path) as stream:
        filled = (raw for raw in stream if raw.removeprefix(UTF8_BOM).strip())
        first = next(filled, b"").removeprefix(UTF8_BOM).strip()
        if first.startswith(b"["):
            return False
        if is_lines_by_name or not first.startswith(b"{"):
            return is_lines_by_name
        try:
            orjson.loads(first)
        except orjson.JSONDecodeError:
            return False
        return next(filled, None) is not None


READERS: Mapping[str, Callable[[Path, OnBadRow], Rows]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
"""Kinds of files by suffix."""
