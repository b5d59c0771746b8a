"""A parquet file, read batch by batch so that memory is bounded by the batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow
from luthier.corpus.readers.raw_file import empty_error, open_data_file

_BATCH_ROWS = 1_024


def read_parquet(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield each row of a parquet file; rows have numbers and no lines.

    Args:
        path: The file.
        on_bad_row: Never called: a parquet file is whole or broken, row by row it can't be.

    Raises:
        DataError: The file can't be read, is not parquet, is damaged, or has no rows.
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
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(_BATCH_ROWS):
                yield from cast(list[dict[str, Any]], batch.to_pylist())
    # OSError is what Arrow makes of a damaged page, UnicodeDecodeError of text that isn't UTF-8.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the file can't be read as parquet: {error}",
            where=str(path),
            mend="Write or download it again, or name it by what it holds (.json, .jsonl, .csv).",
        ) from error
