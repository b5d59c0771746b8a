"""The formats of rows that are known: by which fields each is told.

In: a row of which nothing is declared, or only names of fields. Out: its layout, of any kind or of
those that training learns from; a row whose fields tell no format is refused with all that are
known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from luthier.corpus.answers import has_sides, refuse_preference
from luthier.corpus.bad_rows import RowError
from luthier.corpus.layouts import (
    ROLE_NAMES,
    ChatLayout,
    FlatLayout,
    Layout,
    RecordLayout,
    Row,
    TextLayout,
    TurnsLayout,
    declared_layout,
    keys_of_turn,
    with_columns,
)
from luthier.corpus.readers.source import Source

_NOTHING: Mapping[str, str] = MappingProxyType({})
_TURN_FIELDS: Mapping[str, str] = {"messages": "messages", "conversations": "sharegpt"}
_FLAT = (
    FlatLayout("alpaca", "instruction", "output"),
    FlatLayout("prompt_response", "prompt", "response"),
    FlatLayout("prompt_response", "prompt", "completion"),
    FlatLayout("prompt_response", "prompt", "answer"),
    FlatLayout("question_answer", "question", "answer"),
)

EXAMPLES: Mapping[str, str] = {
    "alpaca": '{"instruction": "...", "input": "...", "output": "..."}',
    "messages": '{"messages": [{"role": "user", "content": "..."}, '
    '{"role": "assistant", "content": "..."}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "..."}, '
    '{"from": "gpt", "value": "..."}]}',
    "prompt_response": '{"prompt": "...", "response": "..."} (or completion, or answer)',
    "question_answer": '{"question": "...", "answer": "..."}',
}
"""One row of each format that training learns from, for messages and docs."""

OTHER_EXAMPLES: Mapping[str, str] = {
    "preference": '{"prompt": "...", "chosen": "...", "rejected": "..."} (or lists of messages)',
    "kto": '{"prompt": "...", "completion": "...", "label": true}',
    "text": '{"text": "..."}',
}
"""One row of each format that other stages learn from."""


def layout_finder(source: Source, *, any_kind: bool = False) -> Callable[[Row], Layout]:
    """Return what tells the layout of each row of a source; it raises as `find_layout` does.

    Args:
        source: Where the rows come from.
        any_kind: Rows that training refuses have a layout too.
    """
    declared = declared_layout(source)
    if declared is not None:
        return lambda _row: declared
    find = find_record_layout if any_kind else find_layout
    return lambda row: find(row, source.columns)


def text_layout_finder(source: Source) -> Callable[[Row], Layout]:
    """Return what tells where the document of each row of a source stands.

    Args:
        source: Where the rows come from. What else a row holds does not matter: only a field with
            text, `text` unless another is declared, is read.

    Raises:
        RowError: What is returned raises it of a row that holds no document.
    """
    declared = declared_layout(source)
    if isinstance(declared, TextLayout | RecordLayout):
        return lambda _row: declared
    layout = TextLayout(text=source.columns.get("text", "text"))

    def find(row: Row) -> Layout:
        # A field that was declared and is missing is told as such by what reads the row.
        if declared is None and (layout.text in row or "text" in source.columns):
            return layout
        raise no_document(row)

    return find


def find_layout(row: Row, columns: Mapping[str, str] = _NOTHING) -> Layout:
    """Return the format of a training row, by its fields.

    Fields that are null count as absent where that decides between formats: a table with rows of
    several formats has all columns in each row.

    Args:
        row: The fields as they were read.
        columns: Names of fields that are declared, by the words of dataset_info.json.

    Raises:
        RowError: The fields are those of no format that is known, of preference data or of a text.
    """
    refuse_preference(row)
    layout = find_record_layout(row, columns)
    if isinstance(layout, TextLayout):
        raise unknown_format(row)
    return layout


def find_record_layout(row: Row, columns: Mapping[str, str] = _NOTHING) -> Layout:
    """Return the format of a row of any kind, by its fields; see `find_layout`.

    Raises:
        RowError: The fields are those of no format that is known.
    """
    if "text" in columns:
        return TextLayout(text=columns["text"])
    fields = frozenset(key for key, value in row.items() if value is not None)
    sides = _sides(columns)
    if sides is not None or has_sides(row, None):
        layout = _find_prompt(row, fields, columns, sides or ("chosen", "rejected"))
    else:
        layout = _match(row, fields, columns) or _match(row, frozenset(row), columns)
    if layout is not None:
        return with_columns(layout, columns)
    for flat in _FLAT:
        if flat.prompt in row:
            answers = " or ".join(other.answer for other in _FLAT if other.prompt == flat.prompt)
            raise RowError(
                "missing_field", f"the field {answers} is missing (found: {_listed(row)})"
            )
    if "output" in row:
        raise RowError("missing_field", f"the field instruction is missing (found: {_listed(row)})")
    if "text" in row:
        return TextLayout()
    raise unknown_format(row, any_kind=True)


def find_prompt_layout(row: Row) -> ChatLayout:
    """Return the format of a row that needs no answer.

    Raises:
        RowError: The row has no field that holds a prompt.
    """
    fields = frozenset(key for key, value in row.items() if value is not None)
    layout = _prompt_in(row, fields, _NOTHING)
    if layout is not None:
        return layout
    raise RowError(
        "unknown_format",
        f"no field holds a prompt (found: {_listed(row)})",
        mend='Write {"prompt": "..."}, {"messages": [...]} or {"instruction": "...", "input": ""}.',
    )


def unknown_format(row: Row, *, any_kind: bool = False) -> RowError:
    """Build the error for a row whose fields tell no format: what it has, and what is known.

    Args:
        row: The fields.
        any_kind: Name the formats of other stages too.
    """
    examples = {**EXAMPLES, **OTHER_EXAMPLES} if any_kind else EXAMPLES
    known = "\n".join(f"    {name}: {example}" for name, example in examples.items())
    is_text = not any_kind and isinstance(row.get("text"), str)
    hint = "Rows of plain text are learned by stage: pt. " * is_text
    return RowError(
        "unknown_format",
        f"the fields of the row are those of no format that is known (found: {_listed(row)})",
        mend=f"{hint}Name the fields as one of these, or declare them in dataset_info.json "
        f"(columns, tags):\n{known}",
    )


def no_document(row: Row) -> RowError:
    """Build the error for a row of another kind where a document for pre-training is needed."""
    return RowError(
        "unknown_format",
        f"the row holds no document for pre-training in a field text (found: {_listed(row)})",
        mend='Write {"text": "..."}, or name the field: sources: [{path: FILE, columns: '
        "{text: FIELD}}]. Conversations are learned by stage: sft.",
    )


def _listed(row: Row) -> str:
    return ", ".join(row) or "none"


def _sides(columns: Mapping[str, str]) -> tuple[str, str] | None:
    if "chosen" not in columns and "rejected" not in columns:
        return None
    return columns.get("chosen", "chosen"), columns.get("rejected", "rejected")


def _match(row: Row, fields: frozenset[str], columns: Mapping[str, str]) -> ChatLayout | None:
    """Return the layout of a row with an answer."""
    layout = _turns_in(row, fields, columns)
    if layout is not None:
        return layout
    if declared := _declared_flat(columns):
        return declared
    flat = next((flat for flat in _FLAT if {flat.prompt, flat.answer} <= fields), None)
    if flat is not None and isinstance(row[flat.prompt], list):
        return replace(_spelled(row, flat.prompt, "messages"), answer=flat.answer)
    return flat


def _find_prompt(
    row: Row, fields: frozenset[str], columns: Mapping[str, str], sides: tuple[str, str]
) -> ChatLayout:
    """Return the layout of a row that ranks answers: where its prompt stands.

    Raises:
        RowError: There is none, and the answers don't hold it either.
    """
    layout = _declared_flat(columns) or _prompt_in(row, fields, columns)
    if layout is not None:
        return layout
    if isinstance(row.get(sides[0]), list):
        return _spelled(row, sides[0], "messages")
    raise RowError(
        "missing_field",
        f"the row ranks answers, and no field holds their prompt (found: {_listed(row)})",
        mend='Write the prompt beside them, {"prompt": "...", "chosen": "...", "rejected": "..."}, '
        "or into both, as lists of messages.",
    )


def _prompt_in(row: Row, fields: frozenset[str], columns: Mapping[str, str]) -> ChatLayout | None:
    layout = _turns_in(row, fields, columns)
    if layout is not None:
        return layout
    flat = next((flat for flat in _FLAT if flat.prompt in fields), None)
    if flat is not None and isinstance(row[flat.prompt], list):
        return _spelled(row, flat.prompt, "messages")
    return flat


def _declared_flat(columns: Mapping[str, str]) -> FlatLayout | None:
    return _FLAT[0] if {"prompt", "response", "query", "history"} & columns.keys() else None


def _turns_in(row: Row, fields: frozenset[str], columns: Mapping[str, str]) -> TurnsLayout | None:
    """Return the layout of a list of turns; both spellings of a turn are found in both fields."""
    if "messages" in columns:
        return _spelled(row, columns["messages"], "messages")
    found = next((field for field in _TURN_FIELDS if field in fields), None)
    return None if found is None else _spelled(row, found, _TURN_FIELDS[found])


def _spelled(row: Row, field: str, name: str) -> TurnsLayout:
    """Return the layout of turns by the keys of the first one."""
    value = row.get(field)
    first = value[0] if isinstance(value, list) and value else None
    role, content = keys_of_turn(first, is_sharegpt=name == "sharegpt")
    return TurnsLayout(name, field, role, content, ROLE_NAMES)
