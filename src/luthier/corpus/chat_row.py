"""The turns of one row, wherever its layout says that they stand.

In: a row and its layout. Out: the turns of the prompt, and those of an answer in a field of its
own. Refuses fields that belong to what the model sees and would be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from luthier.contracts.conversation import Message
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.layouts import ChatLayout, FlatLayout, Row
from luthier.corpus.turns import read_answer, read_turns, text_of

# Filled, these belong to what the model sees, and would be left out: better to say so.
_UNSUPPORTED = ("functions", "images", "videos", "audios")
_UNSUPPORTED_FLAT = (*_UNSUPPORTED, "context")


def read_prompt(row: Row, layout: ChatLayout) -> list[Message]:
    """Return the turns before the answer, or all turns where the answer is among them.

    Args:
        row: The fields as they were read.
        layout: Where the parts stand.

    Raises:
        RowError: A part is missing or of a wrong type, or a field would be left out that belongs
            to what the model sees.
    """
    if isinstance(layout, FlatLayout):
        return _flat_prompt(row, layout)
    refuse_filled(row, _UNSUPPORTED)
    if layout.turns not in row:
        raise missing_field(row, layout.turns)
    return [*_system(row, layout.system), *read_turns(row[layout.turns], layout)]


def read_own_answer(row: Row, layout: ChatLayout) -> Sequence[Message]:
    """Return the turns of an answer that stands in a field of its own, if it does.

    Raises:
        RowError: The field is missing, or no answer.
    """
    if layout.answer is None:
        return ()
    if layout.answer not in row:
        raise missing_field(row, layout.answer)
    value = row[layout.answer]
    if isinstance(layout, FlatLayout):
        return [Message("assistant", text_of(value, layout.answer).strip())]
    return read_answer(value, layout, layout.answer)


def _flat_prompt(row: Row, layout: FlatLayout) -> list[Message]:
    """Return system prompt, history and prompt of a flat row, as the lecture joins them."""
    used = {layout.prompt, layout.query}
    refuse_filled(row, tuple(key for key in _UNSUPPORTED_FLAT if key not in used))
    if layout.prompt not in row:
        raise missing_field(row, layout.prompt)
    prompt = text_of(row[layout.prompt], layout.prompt).strip()
    query = _optional_text(row, layout.query).strip()
    if query:
        prompt += "\n" + query
    messages = [*_system(row, layout.system), *_history(row, layout.history)]
    return [*messages, Message("user", prompt)]


def _system(row: Row, field: str) -> list[Message]:
    text = _optional_text(row, field).strip()
    return [Message("system", text)] if text else []


def _history(row: Row, field: str) -> list[Message]:
    value = row.get(field)
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise RowError("wrong_type", f"{field} is {kind_of(value)}, a list of pairs is needed")
    messages: list[Message] = []
    for at, pair in enumerate(cast(list[Any], value)):
        path = f"{field}[{at}]"
        if not isinstance(pair, list) or len(cast(list[Any], pair)) != 2:
            raise RowError("wrong_type", f"{path} is not a pair of prompt and answer")
        asked, answered = cast(list[Any], pair)
        messages.append(Message("user", text_of(asked, f"{path}[0]").strip()))
        messages.append(Message("assistant", text_of(answered, f"{path}[1]").strip()))
    return messages


def _optional_text(row: Row, field: str) -> str:
    value = row.get(field)
    return "" if value is None else text_of(value, field)


def refuse_filled(row: Row, fields: tuple[str, ...]) -> None:
    """Refuse a row in which one of some fields holds something.

    Raises:
        RowError: One does.
    """
    for key in fields:
        if row.get(key):
            detail = f"the field {key} would be left out of what the model sees"
            raise RowError("unsupported_field", detail)


def missing_field(row: Row, field: str) -> RowError:
    """Build the error for a row that lacks a field: what it has."""
    found = ", ".join(row) or "none"
    return RowError("missing_field", f"the field {field} is missing (found: {found})")
