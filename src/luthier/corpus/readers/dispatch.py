"""The reader of each kind of file, chosen by the file's suffix and, for JSON, by its content.

A second suffix (.jsonl.gz) says how the file is compressed, which is no business of the readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow
from luthier.corpus.readers.compressed import PACKED_SUFFIXES, split_suffix
from luthier.corpus.readers.csv_table import read_csv
from luthier.corpus.readers.hub import read_hub
from luthier.corpus.readers.json_array import read_json_array
from luthier.corpus.readers.json_lines import read_json_lines
from luthier.corpus.readers.parquet_table import read_parquet
from luthier.corpus.readers.raw_file import UTF8_BOM, lines_of, open_data_file
from luthier.corpus.readers.source import Source
from luthier.corpus.readers.text_lines import read_text_lines

Rows = Iterator[tuple[Origin, dict[str, Any]]]
_HEAD_BYTES = 1 << 16


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
    return READERS[split_suffix(path)[0]](path, on_bad_row)


def is_data_file(path: Path) -> bool:
    """Return whether the name is that of a kind of file that can be read."""
    kind, packing = split_suffix(path)
    return kind in READERS and not (packing and kind in _PACKED_WITHIN)


def check_kind(path: Path) -> None:
    """Refuse a file of unknown kind by its name alone.

    Raises:
        DataError: No reader knows the suffix.
    """
    if is_data_file(path):
        return
    kind, packing = split_suffix(path)
    mend = f"Known: {KNOWN_KINDS}."
    if packing or kind in {".zip", ".xz", ".bz2"}:
        mend = "Unpack it first."
    if packing and not kind:
        mend = f"Name it by what it holds, such as {path.stem}.jsonl{packing}, or unpack it first."
    raise DataError(
        f"files of the kind {kind + packing or 'without suffix'} can't be read",
        where=str(path),
        mend=mend,
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
    is_lines_by_name = split_suffix(path)[0] != ".json"
    # A list may stand on one line as long as the file: so its first bytes are looked at alone.
    with open_data_file(path) as stream:
        head = stream.readline(_HEAD_BYTES).removeprefix(UTF8_BOM)
        while head and not head.strip():
            head = stream.readline(_HEAD_BYTES)
    first = head.strip()[:1]
    if first == b"[":
        return False
    if is_lines_by_name or first != b"{":
        return is_lines_by_name
    with open_data_file(path) as stream:
        filled = (raw for _, raw in lines_of(path, stream) if raw.strip())
        try:
            orjson.loads(next(filled))
        except orjson.JSONDecodeError:
            return False
        return next(filled, None) is not None


READERS: Mapping[str, Callable[[Path, OnBadRow], Rows]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_csv,
    ".txt": read_text_lines,
    ".parquet": read_parquet,
}
"""Kinds of files by suffix, without that of a compression."""
_PACKED_WITHIN = frozenset({".parquet"})
"""Kinds that compress what they hold themselves, and must be read out of order."""
KNOWN_KINDS = (
    f"{', '.join(READERS)}; all but {', '.join(sorted(_PACKED_WITHIN))} "
    f"also with {' or '.join(PACKED_SUFFIXES)} behind it"
)
"""All kinds, in words, for messages."""
