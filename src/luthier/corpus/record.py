"""The canonical record as columns: what steps work on, and how it lies in Parquet.

The Arrow schema is written out, so that a column that is empty in one batch has the same type as in
the next. Steps may add columns; those are strings, numbers or lists of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.contracts.corpus_step import Columns

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(conversations: Sequence[Conversation], source: str) -> Columns:
    """Lay conversations out in columns; see `contracts/corpus_step.py` for what stands in them.

    Args:
        conversations: Rows of one source.
        source: Its name. An id is the source and the row's number in it, so it is the same in
            every run and for any order of the sources.
    """
    messages = [
        [{"role": m.role, "content": m.content, "weight": m.weight} for m in row.messages]
        for row in conversations
    ]
    nothing: list[Any] = [None] * len(conversations)
    return {
        "id": [f"{source}#{row.origin.row}" for row in conversations],
        "source": [source] * len(conversations),
        "origin": [str(row.origin) for row in conversations],
        "messages": messages,
        "text": list(nothing),
        "chosen": list(nothing),
        "rejected": list(nothing),
        "label": list(nothing),
        "tools": list(nothing),
        "category": [row.category for row in conversations],
        "language": list(nothing),
        "task": [row.task for row in conversations],
        "weight": [row.weight for row in conversations],
    }


def conversations_of(columns: Columns) -> list[Conversation]:
    """Read conversations out of columns; the inverse of `columns_of` for what training uses."""
    rows: list[Conversation] = []
    for number, messages in enumerate(columns["messages"]):
        source, _, row = columns["id"][number].rpartition("#")
        rows.append(
            Conversation(
                messages=tuple(Message(m["role"], m["content"], m["weight"]) for m in messages),
                origin=_origin(columns["origin"][number], source, int(row)),
                weight=columns["weight"][number],
                task=columns["task"][number],
                category=columns["category"][number],
            )
        )
    return rows


def num_rows(columns: Columns) -> int:
    """Return how many rows columns hold."""
    return len(columns["id"])


def select(columns: Columns, keep: Sequence[bool]) -> Columns:
    """Return the rows whose flag is true, in their order."""
    return {
        name: [value for value, kept in zip(values, keep, strict=True) if kept]
        for name, values in columns.items()
    }


def write_part(columns: Columns, path: Path) -> None:
    """Write columns to one Parquet file."""
    import pyarrow.parquet as pq

    pq.write_table(to_table(columns), path, compression="zstd")


def read_parts(folder: Path) -> Iterator[Columns]:
    """Yield the parts of a folder in the order in which they were written."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("part-*.parquet")):
        yield pq.read_table(path).to_pydict()


def to_table(columns: Columns) -> pa.Table:
    """Return columns as an Arrow table of the canonical schema, added columns behind it."""
    import pyarrow as pa

    schema = record_schema()
    known = [name for name in schema.names if name in columns]
    arrays = [pa.array(columns[name], schema.field(name).type) for name in known]
    added = [name for name in columns if name not in schema.names]
    return pa.table([*arrays, *(pa.array(columns[name]) for name in added)], names=[*known, *added])


def record_schema() -> pa.Schema:
    """Return the canonical record's Arrow schema."""
    import pyarrow as pa

    turns = pa.list_(
        pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.float64())])
    )
    texts = ("id", "source", "origin")
    optional = ("tools", "category", "language", "task")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("messages", turns),
            ("text", pa.string()),
            ("chosen", turns),
            ("rejected", turns),
            ("label", pa.bool_()),
            *((name, pa.string()) for name in optional),
            ("weight", pa.float64()),
        ]
    )


def _origin(origin: str, source: str, row: int) -> Origin:
    file, _, line = origin.rpartition(":")
    return Origin(file, row, int(line)) if file and line.isdigit() else Origin(source, row)
