"""A row of a prepared corpus, read back: the columns of `contracts/corpus_step.py`, as one record.

Values are checked as those of any other row are: a file may be declared to be such a corpus and be
none. Columns that steps have added are passed over.
"""

from __future__ import annotations

from typing import Any

from luthier.contracts.conversation import ROLES, Message, Origin, Record
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.layouts import Row, TurnsLayout
from luthier.corpus.record import origin_of
from luthier.corpus.turns import margin_of, read_turns, text_of, weight_of

_TURNS = TurnsLayout(
    "record", "messages", "role", "content", {role: role for role in ROLES}, call=""
)
_NEEDED = ("id", "origin", "messages")


def prepared_record(row: Row) -> Record:
    """Return the record of a prepared row.

    Its origin is that of the row in the file that it was prepared from.

    Args:
        row: The columns as they were read.

    Raises:
        RowError: A column is missing, or has a value of a wrong type.
    """
    for name in _NEEDED:
        if name not in row:
            raise RowError(
                "missing_field",
                f"the field {name} is missing: this is no row of a prepared corpus",
            )
    label = row.get("label")
    if not (label is None or isinstance(label, bool)):
        raise RowError("wrong_type", f"label is {kind_of(label)}, not true or false")
    texts: dict[str, Any] = {
        name: _text(row, name) for name in ("text", "tools", "category", "language", "task")
    }
    return Record(
        origin=_origin(row),
        messages=_side(row, "messages") or (),
        chosen=_side(row, "chosen"),
        rejected=_side(row, "rejected"),
        margin=margin_of(row),
        label=label,
        weight=weight_of(row, ""),
        **texts,
    )


def _origin(row: Row) -> Origin:
    source, _, number = text_of(row["id"], "id").rpartition("#")
    if not number.isdigit():
        raise RowError("wrong_type", f"id is {row['id']!r}, source#number is needed")
    return origin_of(text_of(row["origin"], "origin"), source, int(number))


def _side(row: Row, name: str) -> tuple[Message, ...] | None:
    value = row.get(name)
    return None if value is None else tuple(read_turns(value, _TURNS, name))


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    return None if value is None else text_of(value, name)
