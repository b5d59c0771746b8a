"""A cleaned corpus into its folder: shards, what was dropped, and one hash over all of it.

In: the results of the steps, and the side of each row. Out: the files of `folder.py`, all but the
data card. Rows pass through one batch at a time. The hash is over what rows say, in their order and
with their side; where the files of the user lay, and how rows are spread over shards, is no part
of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from luthier.contracts.corpus_step import Columns
from luthier.core.hashing import hash_file
from luthier.corpus.folder import DROPPED, TRAIN, VAL
from luthier.corpus.lengths import TokenRate
from luthier.corpus.parts import part_paths, read_table
from luthier.corpus.pipeline import StepOutcome, dropped_paths
from luthier.corpus.statistics import Tally

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_PER_SHARD = 100_000
_NOT_HASHED = "origin"
"""Where a row stood is for people; it changes with the folder, and the row does not."""


@dataclass(slots=True)
class Written:
    """What was written.

    Attributes:
        rows_sha256: Hash of all rows that are left, with their sides.
        after: Counts of the rows that are left.
        before: Counts of these and the dropped ones: of all that was read.
        files: For each file its hash, its bytes and its rows.
    """

    rows_sha256: str = ""
    after: Tally = field(default_factory=Tally)
    before: Tally = field(default_factory=Tally)
    files: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


def write_corpus(
    folder: Path,
    outcomes: Sequence[StepOutcome],
    is_val: Sequence[bool] | None,
    val_outcomes: Sequence[StepOutcome],
    rate: TokenRate,
) -> Written:
    """Write train and val shards and `dropped.parquet` into a folder.

    Args:
        folder: An empty folder.
        outcomes: Of the training rows: reading and each step.
        is_val: The side of each row that is left, or None where all train.
        val_outcomes: Of the rows of a validation file; empty where there is none.
        rate: Tells how long rows are.

    Raises:
        OSError: The disk is full.
    """
    found = Written()
    digest = hashlib.sha256()
    parts = part_paths(outcomes[-1].folder)
    val_parts = part_paths(val_outcomes[-1].folder) if val_outcomes else []
    sides = chain(_sides(parts, is_val), ((VAL, read_table(path)) for path in val_parts))
    schema = _schema([*parts, *val_parts])
    with _Shards(folder, TRAIN, schema) as train, _Shards(folder, VAL, schema) as val:
        for side, table in sides:
            if not table.num_rows:
                continue
            (train if side == TRAIN else val).write(table)
            columns = table.to_pydict()
            found.after.add(Tally.of(columns, rate))
            for line in _lines(columns, side):
                digest.update(line)
    found.rows_sha256 = digest.hexdigest()
    found.before.add(found.after)
    _write_dropped(folder, [*outcomes, *val_outcomes], rate, found.before)
    found.files = {
        path.relative_to(folder).as_posix(): _facts(path)
        for path in sorted(folder.rglob("*.parquet"))
    }
    return found


def _sides(parts: Sequence[Path], is_val: Sequence[bool] | None) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each part by side, in order."""
    at = 0
    for path in parts:
        table = read_table(path)
        if is_val is None:
            yield TRAIN, table
            continue
        flags = is_val[at : at + table.num_rows]
        at += len(flags)
        if not any(flags):
            yield TRAIN, table
            continue
        yield TRAIN, table.filter([not flag for flag in flags])
        yield VAL, table.filter(flags)


def _lines(columns: Columns, side: str) -> Iterator[bytes]:
    names = sorted(name for name in columns if name != _NOT_HASHED)
    for values in zip(*(columns[name] for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        yield orjson.dumps([side, row], option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _write_dropped(
    folder: Path, outcomes: Sequence[StepOutcome], rate: TokenRate, before: Tally
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [(o.account.name, path) for o in outcomes for path in dropped_paths(o.folder)]
    if not paths:
        return
    texts = ("step", "reason", "detail", "matched_id")
    account = pa.schema([*((name, pa.string()) for name in texts), ("score", pa.float64())])
    found = _schema([path for _, path in paths])
    schema = pa.unify_schemas([account, found], promote_options="permissive")
    with pq.ParquetWriter(folder / DROPPED, schema, compression="zstd") as writer:
        for step, path in paths:
            table = read_table(path)
            before.add(Tally.of(table.to_pydict(), rate))
            table = table.append_column("step", pa.array([step] * table.num_rows))
            writer.write_table(_fitted(table, schema))


class _Shards:
    """Writes one side into files of `ROWS_PER_SHARD` rows; none where there is no row."""

    def __init__(self, folder: Path, side: str, schema: pa.Schema) -> None:
        self._folder, self._schema = folder / side, schema
        self._writer: pq.ParquetWriter | None = None
        self._num_rows = self._num_files = 0

    def __enter__(self) -> _Shards:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def write(self, table: pa.Table) -> None:
        """Write a batch; a batch is never parted."""
        import pyarrow.parquet as pq

        if self._num_rows >= ROWS_PER_SHARD:
            self._close()
        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"part-{self._num_files:05}.parquet"
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
            self._num_files += 1
        self._writer.write_table(_fitted(table, self._schema))
        self._num_rows += table.num_rows

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._num_rows = None, 0


def _schema(paths: Sequence[Path]) -> pa.Schema:
    """Return a schema that holds the rows of all files: a step's column may be empty in some."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = [pq.read_schema(path) for path in paths]
    return pa.unify_schemas(found, promote_options="permissive")


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    arrays = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _facts(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    return {
        "sha256": hash_file(path),
        "bytes": path.stat().st_size,
        "rows": pq.read_metadata(path).num_rows,
    }
