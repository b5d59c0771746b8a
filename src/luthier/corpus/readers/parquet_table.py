"""A parquet file, read batch by batch so that memory is bounded by the batch.

Pages are read as they are needed, and batches are small where rows are large: a file that was
written as one row group is read like any other. Page checksums are verified where the file has any.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow
from luthier.corpus.readers.raw_file import (
    MAX_ROW_BYTES,
    empty_error,
    open_data_file,
    too_long_error,
)

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 1_024
_BATCH_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20


def read_parquet(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield each row of a parquet file; rows have numbers and no lines.

    Args:
        path: The file.
        on_bad_row: Never called: a parquet file is whole or broken, row by row it can't be.

    Raises:
        DataError: The file can't be read, is not parquet, is damaged, has two columns or fields
            of one name, no rows, or a row that is longer than a row may be.
    """
    del on_bad_row
    open_data_file(path).close()
    row = -1
    for row, found in enumerate(_rows(path)):
        yield Origin(str(path), row), found
    if row < 0:
        raise empty_error(path, "the table has no rows")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pre_buffer would hold a whole row group, which may be the whole file.
        with pq.ParquetFile(
            path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        ) as table:
            _check_names(path, table.schema_arrow)
            num_before = 0
            for group in range(table.num_row_groups):
                about = table.metadata.row_group(group)
                row_bytes = about.total_byte_size // max(1, about.num_rows)
                num_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
                for batch in table.iter_batches(num_rows, row_groups=[group]):
                    _check_sizes(path, batch, num_before)
                    num_before += batch.num_rows
                    yield from cast(list[dict[str, Any]], batch.to_pylist())
    # OSError is what Arrow makes of a damaged page, UnicodeDecodeError of text that isn't UTF-8.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the file can't be read as parquet: {error}",
            where=str(path),
            mend="Write or download it again, or name it by what it holds (.json, .jsonl, .csv).",
        ) from error


def _check_names(path: Path, schema: pa.Schema) -> None:
    """Refuse two columns, or two fields of a struct, of one name: rows would keep the last."""
    stack: list[list[pa.Field]] = [list(schema)]
    while stack:
        fields = stack.pop()
        names = [field.name for field in fields]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(
                f"the column {twice!r} stands twice",
                where=str(path),
                mend="Give each column, and each field within one, a name of its own.",
            )
        # A list, a map and a struct hold fields alike; other types hold none.
        stack.extend(
            [field.type.field(number) for number in range(field.type.num_fields)]
            for field in fields
        )


def _check_sizes(path: Path, batch: pa.RecordBatch, num_before: int) -> None:
    if batch.nbytes <= MAX_ROW_BYTES:
        return
    for number in range(batch.num_rows):
        if batch.slice(number, 1).nbytes > MAX_ROW_BYTES:
            where = str(Origin(str(path), num_before + number))
            raise too_long_error("this row", where, "Part the row, or leave it out.")
