"""The canonical record as columns: what steps work on, and how it lies in Parquet.

The Arrow schema is written out, so that a column that is empty in one batch has the same type as in
the next. Steps may add columns; those are strings, numbers or lists of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

from luthier.contracts.conversation import Conversation, Message, Origin, Record
from luthier.contracts.corpus_step import Columns

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(
    records: Sequence[Record], source: str | Sequence[str], ids: Sequence[str] | None = None
) -> Columns:
    """Lay rows out in columns; see `contracts/corpus_step.py` for what stands in them.

    Args:
        records: Rows of one source or of several.
        source: The name of the source, or one for each row. An id is the source and the row's
            number in it, so it is the same in every run and for any order of the sources.
        ids: One for each row; None makes them of the source and the row's origin.
    """
    names = [source] * len(records) if isinstance(source, str) else list(source)
    if ids is None:
        ids = [f"{name}#{row.origin.row}" for name, row in zip(names, records, strict=True)]
    return {
        "id": list(ids),
        "source": names,
        "origin": [str(row.origin) for row in records],
        "messages": [_turns(row.messages) for row in records],
        "text": [row.text for row in records],
        "chosen": [None if row.chosen is None else _turns(row.chosen) for row in records],
        "rejected": [None if row.rejected is None else _turns(row.rejected) for row in records],
        "margin": [row.margin for row in records],
        "label": [row.label for row in records],
        "tools": [row.tools for row in records],
        "category": [row.category for row in records],
        "language": [row.language for row in records],
        "task": [row.task for row in records],
        "weight": [row.weight for row in records],
    }


def records_of(columns: Columns) -> list[Record]:
    """Read rows out of columns; the inverse of `columns_of`."""
    names = ("text", "margin", "label", "tools", "category", "language", "task", "weight")
    records: list[Record] = []
    for number, id_ in enumerate(columns["id"]):
        source, _, row = id_.rpartition("#")
        chosen, rejected = (columns[name][number] for name in ("chosen", "rejected"))
        records.append(
            Record(
                origin=origin_of(columns["origin"][number], source, int(row)),
                messages=_messages(columns["messages"][number]),
                chosen=None if chosen is None else _messages(chosen),
                rejected=None if rejected is None else _messages(rejected),
                **{name: columns[name][number] for name in names},
            )
        )
    return records


def conversations_of(columns: Columns) -> list[Conversation]:
    """Read conversations out of columns, which hold no rows of another kind."""
    return [
        Conversation(row.messages, row.origin, row.weight, row.task, row.category)
        for row in records_of(columns)
    ]


def origin_of(origin: str, source: str, row: int) -> Origin:
    """Return what a text of `str(Origin)` stands for.

    Args:
        origin: `file:line`, or `file row number`.
        source: The file, where the text is neither.
        row: The row's number, where the text has none.
    """
    file, _, line = origin.rpartition(":")
    if file and line.isdigit():
        return Origin(file, row, int(line))
    file, _, number = origin.rpartition(" row ")
    return Origin(file, int(number)) if file and number.isdigit() else Origin(source, row)


def num_rows(columns: Columns) -> int:
    """Return how many rows columns hold."""
    return len(columns["id"])


def select(columns: Columns, keep: Sequence[bool]) -> Columns:
    """Return the rows whose flag is true, in their order."""
    return {
        name: [value for value, kept in zip(values, keep, strict=True) if kept]
        for name, values in columns.items()
    }


def to_table(
    columns: Columns, built: Mapping[str, pa.Array | pa.ChunkedArray] | None = None
) -> pa.Table:
    """Return columns as an Arrow table of the canonical schema, added columns behind it.

    Args:
        columns: Rows.
        built: Those of the columns that are there as arrays already.
    """
    import pyarrow as pa

    schema, built = record_schema(), built or {}
    types = {name: schema.field(name).type for name in schema.names if name in columns}
    types |= {name: None for name in columns if name not in types}
    arrays = [
        built[name] if name in built else pa.array(columns[name], type_)
        for name, type_ in types.items()
    ]
    return pa.table(arrays, names=list(types))


def table_after(columns: Columns, before: Columns, table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return what a step made of rows as an Arrow table, building only what the step made new.

    Args:
        columns: What the step returned: some of the rows, in their order.
        before: The rows that it was given.
        table: The same rows as an Arrow table.

    Returns:
        The table, and the names of the columns that hold something new.
    """
    if len(columns["id"]) < len(before["id"]):
        left = set(columns["id"])
        keep = [id_ in left for id_ in before["id"]]
        table, before = table.filter(keep), select(before, keep)
    # Values are never changed in place, so the same object says the same.
    new = [
        name
        for name, values in columns.items()
        if name not in before or not all(map(is_, values, before[name]))
    ]
    built = {name: table.column(name) for name in columns if name not in new}
    return to_table(columns, built), new


def record_schema() -> pa.Schema:
    """Return the canonical record's Arrow schema."""
    import pyarrow as pa

    turns = pa.list_(
        pa.struct(
            [
                *((name, pa.string()) for name in ("role", "content")),
                ("weight", pa.float64()),
                ("tool_calls", pa.string()),
            ]
        )
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
            ("margin", pa.float64()),
            ("label", pa.bool_()),
            *((name, pa.string()) for name in optional),
            ("weight", pa.float64()),
        ]
    )


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [
        {"role": m.role, "content": m.content, "weight": m.weight, "tool_calls": m.tool_calls}
        for m in messages
    ]


def _messages(turns: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"], m["weight"], m.get("tool_calls")) for m in turns)
