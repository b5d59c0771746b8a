"""The formats of rows that are known: by which fields each is told, and where its parts stand.

In: a row, or what dataset_info.json declares of a file. Out: the row's layout: either a list of
turns (`messages`, sharegpt) or fields side by side (alpaca, prompt/response, question/answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from luthier.contracts.conversation import Role
from luthier.corpus.bad_rows import RowError
from luthier.corpus.readers.source import Source

Row = Mapping[str, Any]

ROLE_NAMES: Mapping[str, Role] = MappingProxyType(
    {
        "system": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "gpt": "assistant",
        "bot": "assistant",
        "tool": "tool",
        "observation": "tool",
    }
)
"""What the field calls the speakers, in messages and in sharegpt."""


@dataclass(frozen=True, slots=True)
class TurnsLayout:
    """A list of turns under one field.

    Attributes:
        name: What the format is called in counts and messages.
        turns: The field that holds the list.
        role: The key of a turn that names the speaker.
        content: The key of a turn that holds its text.
        roles: The names of speakers that are known.
        system: A field of the row that may hold a system prompt.
    """

    name: str
    turns: str
    role: str
    content: str
    roles: Mapping[str, Role]
    system: str = "system"


@dataclass(frozen=True, slots=True)
class FlatLayout:
    """Prompt and answer in fields of their own.

    Attributes:
        name: What the format is called in counts and messages.
        prompt: The field with the prompt.
        answer: The field with the answer.
        query: A field that may hold more of the prompt, set below it.
        system: A field that may hold a system prompt.
        history: A field that may hold earlier turns, as pairs of prompt and answer.
    """

    name: str
    prompt: str
    answer: str
    query: str = "input"
    system: str = "system"
    history: str = "history"


Layout = TurnsLayout | FlatLayout

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
"""One row of each format that is told by its fields, for messages and docs."""


def declared_layout(source: Source) -> Layout | None:
    """Return the layout that dataset_info.json declares for a source, or None: look at each row."""
    columns, tags = source.columns, source.tags
    if source.format == "auto":
        return None
    system = columns.get("system", "system")
    if source.format == "alpaca":
        return FlatLayout(
            "alpaca",
            prompt=columns.get("prompt", "instruction"),
            answer=columns.get("response", "output"),
            query=columns.get("query", "input"),
            system=system,
            history=columns.get("history", "history"),
        )
    roles: dict[str, Role] = {
        tags.get("user_tag", "human"): "user",
        tags.get("assistant_tag", "gpt"): "assistant",
        tags.get("system_tag", "system"): "system",
        tags.get("observation_tag", "observation"): "tool",
    }
    return TurnsLayout(
        "sharegpt",
        turns=columns.get("messages", "conversations"),
        role=tags.get("role_tag", "from"),
        content=tags.get("content_tag", "value"),
        roles=roles,
        system=system,
    )


def find_layout(row: Row) -> Layout:
    """Return the format of a training row, by its fields.

    Fields that are null count as absent where that decides between formats: a table with rows of
    several formats has all columns in each row.

    Raises:
        RowError: The fields are those of no format that is known, or of preference data.
    """
    refuse_preference(row)
    fields = frozenset(key for key, value in row.items() if value is not None)
    layout = _match(row, fields) or _match(row, frozenset(row))
    if layout is not None:
        return layout
    for flat in _FLAT:
        if flat.prompt in row:
            answers = " or ".join(other.answer for other in _FLAT if other.prompt == flat.prompt)
            raise RowError(
                "missing_field", f"the field {answers} is missing (found: {_listed(row)})"
            )
    if "output" in row:
        raise RowError("missing_field", f"the field instruction is missing (found: {_listed(row)})")
    raise unknown_format(row)


def find_prompt_layout(row: Row) -> Layout:
    """Return the format of a row that needs no answer.

    Raises:
        RowError: The row has no field that holds a prompt.
    """
    fields = frozenset(key for key, value in row.items() if value is not None)
    layout = _turns_in(row, fields)
    if layout is not None:
        return layout
    for flat in _FLAT:
        if flat.prompt in fields:
            return flat
    raise RowError(
        "unknown_format",
        f"no field holds a prompt (found: {_listed(row)})",
        mend='Write {"prompt": "..."}, {"messages": [...]} or {"instruction": "...", "input": ""}.',
    )


def unknown_format(row: Row) -> RowError:
    """Build the error for a row whose fields tell no format: what it has, and what is known."""
    known = "\n".join(f"    {name}: {example}" for name, example in EXAMPLES.items())
    return RowError(
        "unknown_format",
        f"the fields of the row are those of no format that is known (found: {_listed(row)})",
        mend="Name the fields as one of these, or declare them in dataset_info.json "
        f"(columns, tags):\n{known}",
    )


def refuse_preference(row: Row) -> None:
    """Refuse rows that rank answers: trained on as they are, they would teach the bad ones too.

    Raises:
        RowError: The row has `chosen` and `rejected`, or a verdict on its answer.
    """
    if row.get("chosen") is not None and row.get("rejected") is not None:
        raise RowError("preference_data", "the row has the fields chosen and rejected")
    for field in ("label", "kto_tag"):
        if isinstance(row.get(field), bool):
            raise RowError("preference_data", f"the field {field} is a verdict on the answer")


def _listed(row: Row) -> str:
    return ", ".join(row) or "none"


def _match(row: Row, fields: frozenset[str]) -> Layout | None:
    layout = _turns_in(row, fields)
    if layout is not None:
        return layout
    return next((flat for flat in _FLAT if {flat.prompt, flat.answer} <= fields), None)


def _turns_in(row: Row, fields: frozenset[str]) -> TurnsLayout | None:
    """Return the layout of a list of turns; both spellings of a turn are found in both fields."""
    for field, name in _TURN_FIELDS.items():
        if field not in fields:
            continue
        value = row[field]
        first = value[0] if isinstance(value, list) and value else None
        keys: Any = first if isinstance(first, dict) else {}
        is_sharegpt = "role" not in keys and ("from" in keys or name == "sharegpt")
        role, content = ("from", "value") if is_sharegpt else ("role", "content")
        return TurnsLayout(name, field, role, content, ROLE_NAMES)
    return None
