"""Where text stands in a row: one way for all steps to read it and to put it back changed.

In: columns as `contracts.corpus_step` has them. Out: texts, or new columns. Lists and messages that
don't change are handed on as they are; those that do are made anew, never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from luthier.contracts.corpus_step import Columns

TURN_FIELDS = ("messages", "chosen", "rejected")
"""Columns that hold lists of messages; `text` is the one that holds a document."""


def num_rows(columns: Columns) -> int:
    """Return the number of rows."""
    return len(columns["id"])


def cell(columns: Columns, name: str, row: int) -> Any:
    """Return one value, or None where the columns lack that name."""
    values = columns.get(name)
    return None if values is None else values[row]


def turns_of(columns: Columns, name: str, row: int) -> list[dict[str, Any]]:
    """Return the messages of one cell; an absent list is an empty one."""
    values = columns.get(name)
    return [] if values is None else values[row] or []


def contents(turns: Sequence[dict[str, Any]], *roles: str) -> list[str]:
    """Return the texts of messages, of the given roles or of all.

    Args:
        turns: Messages. Content that is no text is passed over: `schema` has a say on it.
        roles: The roles to keep; none keeps all.
    """
    return [
        turn["content"]
        for turn in turns
        if isinstance(turn.get("content"), str) and (not roles or turn.get("role") in roles)
    ]


def texts_of(columns: Columns, row: int) -> list[str]:
    """Return all texts of a row: turns of every side, then the document."""
    found: list[str] = []
    for name in TURN_FIELDS:
        if turns := turns_of(columns, name, row):
            found += contents(turns)
    document = cell(columns, "text", row)
    return [*found, document] if isinstance(document, str) else found


def taught_texts(columns: Columns, row: int) -> list[str]:
    """Return what training would teach: answers that carry loss, the chosen side, the document.

    The rejected side is no part of it: it's there to be bad.
    """
    found = [
        turn["content"]
        for name in ("messages", "chosen")
        for turn in turns_of(columns, name, row)
        if turn.get("role") == "assistant"
        and turn.get("weight") != 0
        and isinstance(turn.get("content"), str)
    ]
    document = cell(columns, "text", row)
    return [*found, document] if isinstance(document, str) else found


def kept(columns: Columns, rows: Sequence[int]) -> Columns:
    """Return the columns with only the given rows, in the given order."""
    if len(rows) == num_rows(columns):
        return columns
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def replace_texts(
    columns: Columns, row: int, change: Callable[[str], str]
) -> Iterator[tuple[str, Any]]:
    """Yield the cells of a row that a change of its texts makes new.

    Args:
        columns: The rows.
        row: Which of them.
        change: From an old text to a new one.

    Returns:
        Names of columns with their new value; nothing for a row that stays as it is.
    """
    for name in TURN_FIELDS:
        turns = turns_of(columns, name, row)
        new = [_replace_content(turn, change) for turn in turns]
        if any(after is not before for after, before in zip(new, turns, strict=True)):
            yield name, new
    document = cell(columns, "text", row)
    if isinstance(document, str) and (changed := change(document)) != document:
        yield "text", changed


def _replace_content(turn: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    content = turn.get("content")
    if not isinstance(content, str) or (changed := change(content)) == content:
        return turn
    return {**turn, "content": changed}
