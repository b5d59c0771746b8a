"""Parts of a corpus on disk: one Parquet file for each batch of rows, in the canonical schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.contracts.corpus_step import Columns
from luthier.corpus.record import to_table

if TYPE_CHECKING:
    import pyarrow as pa


def part_paths(folder: Path) -> list[Path]:
    """Return the parts of a folder in the order in which they were written."""
    return sorted(folder.glob("part-*.parquet"))


def read_part(path: Path) -> Columns:
    """Return the rows of one part."""
    return read_table(path).to_pydict()


def read_table(path: Path) -> pa.Table:
    """Return the rows of one part as an Arrow table."""
    import pyarrow.parquet as pq

    # Not pq.read_table, which would look for a data set in the folders of the path.
    with pq.ParquetFile(path) as file:
        # A part is small, and other workers read others: threads would only be in the way.
        return file.read(use_threads=False)


def read_parts(folder: Path) -> Iterator[Columns]:
    """Yield the parts of a folder in their order, one at a time."""
    return map(read_part, part_paths(folder))


def write_part(columns: Columns, path: Path) -> None:
    """Write rows as one part."""
    write_table(to_table(columns), path)


def write_table(table: pa.Table, path: Path) -> None:
    """Write rows as one part, from an Arrow table."""
    import pyarrow.parquet as pq

    # A third larger than zstd and a dictionary make them, and a third sooner written and read.
    pq.write_table(table, path, compression="lz4", use_dictionary=False)
