"""One row of any known format, as one record.

In: a row as the reader found it. Out: a `Conversation` (for training) or the turns of a prompt
(for generation). A row is taken as it is or refused with a reason; it is never mended in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.layouts import (
    FlatLayout,
    Layout,
    Row,
    TurnsLayout,
    find_layout,
    find_prompt_layout,
    refuse_preference,
)
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.turns import check_order, read_turns, text_of, weight_of

# Filled, these belong to what the model sees, and would be left out: better to say so.
_UNSUPPORTED = ("tools", "functions", "images", "videos", "audios")
_UNSUPPORTED_FLAT = (*_UNSUPPORTED, "context")


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Columns beside the text that training looks at.

    Attributes:
        task: The column that names a row's task.
        task_weights: Weight of each task; others weigh 1.
        category: The column that a split keeps alike on both sides.
    """

    task: str | None = None
    task_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    category: str | None = None

    @classmethod
    def of(cls, settings: CorpusSettings) -> RowColumns:
        """Return the columns that the settings name and this run uses."""
        # Only a split needs the category: without one its absence is no fault of a row.
        splits = settings.val_size > 0 and settings.stratify_by != "length"
        return cls(
            task=settings.task_column,
            task_weights=settings.task_weights or {},
            category=settings.stratify_by if splits else None,
        )


def conversation_from_row(
    row: Row,
    origin: Origin,
    *,
    layout: Layout | None = None,
    columns: RowColumns | None = None,
) -> Conversation:
    """Return the training record of a row.

    Args:
        row: The fields as they were read.
        origin: Where the row stood.
        layout: Where its parts stand; None looks at the fields.
        columns: Columns for task and category.

    Raises:
        RowError: The row is of no known format, or no conversation that ends with an answer.
    """
    columns = columns or RowColumns()
    if layout is None:
        layout = find_layout(row)
    else:
        refuse_preference(row)
    if isinstance(layout, FlatLayout):
        messages = [*_flat_prompt(row, layout), _flat_answer(row, layout)]
    else:
        messages = _turns(row, layout)
    check_order(messages, ends_with="assistant")
    task = _label(row, columns.task) if columns.task else None
    category = _label(row, columns.category) if columns.category else None
    if columns.category and category is None:
        raise RowError("missing_field", f"the field {columns.category} (stratify_by) is missing")
    weight = weight_of(row, "") * (columns.task_weights.get(task, 1.0) if task else 1.0)
    return Conversation(tuple(messages), origin, weight, task, category)


def prompt_from_row(row: Row) -> tuple[Message, ...]:
    """Return the turns that a model is to answer.

    Takes `prompt`, `instruction` (with `input`), `question`, and lists of turns that end with the
    user. An answer in a field of its own is passed over, so that training files serve as prompts.

    Args:
        row: The fields as they were read.

    Raises:
        RowError: The row holds no prompt, or its turns don't end with the user.
    """
    layout = find_prompt_layout(row)
    messages = _flat_prompt(row, layout) if isinstance(layout, FlatLayout) else _turns(row, layout)
    check_order(messages, ends_with="user")
    return tuple(messages)


def _turns(row: Row, layout: TurnsLayout) -> list[Message]:
    _refuse_unsupported(row, _UNSUPPORTED)
    if layout.turns not in row:
        raise _missing(row, layout.turns)
    messages = read_turns(row[layout.turns], layout)
    return [*_system(row, layout.system), *messages]


def _flat_prompt(row: Row, layout: FlatLayout) -> list[Message]:
    """Return system prompt, history and prompt of a flat row, as the lecture joins them."""
    used = {layout.prompt, layout.query}
    _refuse_unsupported(row, tuple(key for key in _UNSUPPORTED_FLAT if key not in used))
    if layout.prompt not in row:
        raise _missing(row, layout.prompt)
    prompt = text_of(row[layout.prompt], layout.prompt).strip()
    query = _optional_text(row, layout.query).strip()
    if query:
        prompt += "\n" + query
    messages = [*_system(row, layout.system), *_history(row, layout.history)]
    return [*messages, Message("user", prompt)]


def _flat_answer(row: Row, layout: FlatLayout) -> Message:
    if layout.answer not in row:
        raise _missing(row, layout.answer)
    return Message("assistant", text_of(row[layout.answer], layout.answer).strip())


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


def _label(row: Row, column: str) -> str | None:
    """Return the value of a column that names something; blank counts as absent."""
    value = row.get(column)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int | float):
        raise RowError("wrong_type", f"{column} is {kind_of(value)}, a name is needed")
    return str(value)


def _refuse_unsupported(row: Row, fields: tuple[str, ...]) -> None:
    for key in fields:
        if row.get(key):
            detail = f"the field {key} would be left out of what the model sees"
            raise RowError("unsupported_field", detail)


def _missing(row: Row, field: str) -> RowError:
    found = ", ".join(row) or "none"
    return RowError("missing_field", f"the field {field} is missing (found: {found})")
