"""Schema: rows that no chat template could render as they were meant.

In: any rows. Out: those whose turns have known roles in an order that a chat has, say something,
end with an answer, hold tool calls that are JSON, and, where they rank answers, have two different
ones. The others leave with the first reason that is found; nothing is mended here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from luthier.contracts.conversation import ROLES, Message
from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.steps.settings import SchemaSettings
from luthier.corpus.text.fields import cell, contents, kept, num_rows, turns_of
from luthier.corpus.turns import check_order

Turns = list[dict[str, Any]]
Flaw = tuple[str, str]
"""A reason and its detail."""

_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Schema:
    """The step `schema`.

    Attributes:
        settings: What is asked.
    """

    settings: SchemaSettings = field(default_factory=SchemaSettings)
    name: str = "schema"

    def __call__(self, columns: Columns) -> StepResult:
        """Take out the rows that break a rule.

        Args:
            columns: Rows.

        Returns:
            The rows that hold, and a drop for each other. With `schema_action: report` all rows
            stay, and counts have `reported_<reason>`.
        """
        rows: list[int] = []
        drops: list[Drop] = []
        counts: Counter[str] = Counter()
        for row in range(num_rows(columns)):
            flaw = find_flaw(columns, row, self.settings)
            if flaw is not None and self.settings.schema_action == "drop":
                drops.append(Drop(columns["id"][row], *flaw))
                continue
            rows.append(row)
            if flaw is not None:
                counts[f"reported_{flaw[0]}"] += 1
        return StepResult(kept(columns, rows), drops, counts)


def find_flaw(columns: Columns, row: int, settings: SchemaSettings) -> Flaw | None:
    """Return the first reason, with its detail, for which a row breaks the schema, or None.

    Args:
        columns: Rows.
        row: Which of them.
        settings: What is asked.
    """
    try:
        return next(_flaws(columns, row, settings), None)
    except RowError as error:
        return error.reason, error.detail


def _flaws(columns: Columns, row: int, settings: SchemaSettings) -> Iterator[Flaw]:
    """Yield flaws, the coarse ones first: what comes later may rely on what came before."""
    turns = turns_of(columns, "messages", row)
    chosen, rejected = (cell(columns, side, row) for side in ("chosen", "rejected"))
    has_sides = chosen is not None or rejected is not None
    document = cell(columns, "text", row)
    if not turns and not has_sides:
        yield from _document_flaws(document)
        return
    if not has_sides:
        _check_turns(turns, "messages")
    else:
        yield from _side_flaws(turns, chosen, rejected)
    if settings.schema_tool_calls:
        declared = cell(columns, "tools", row)
        yield from _tool_flaws(declared, [*turns, *(chosen or []), *(rejected or [])])


def _document_flaws(document: Any) -> Iterator[Flaw]:
    if document is None:
        yield "empty_row", "there are neither messages nor a text"
    elif not isinstance(document, str):
        yield "wrong_type", f"text is {kind_of(document)}, text is needed"
    elif not document.strip():
        yield "empty_text", "the text is blank"


def _side_flaws(prompt: Turns, chosen: Turns | None, rejected: Turns | None) -> Iterator[Flaw]:
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            yield "missing_side", f"there is no {name} answer"
            return
        _check_turns([*prompt, *side], f"messages and {name}")
    assert chosen is not None
    assert rejected is not None
    # White space alone is nothing to prefer one side for.
    if _said(chosen) == _said(rejected):
        yield "equal_sides", "chosen and rejected are the same"


def _said(turns: Turns) -> list[tuple[str, list[str]]]:
    return [(turn["role"], turn["content"].split()) for turn in turns]


def _check_turns(turns: Turns, path: str) -> None:
    """Refuse turns that are no conversation which ends with an answer.

    Raises:
        RowError: A role is unknown, content is no text, the order is no chat's, or a turn is blank.
    """
    messages = [_message(turn, f"{path}[{at}]") for at, turn in enumerate(turns)]
    check_order(messages, ends_with="assistant")
    if not messages[-1].content.strip() and not turns[-1].get("tool_calls"):
        raise RowError("empty_turn", f"message {len(messages) - 1}, the answer, is blank")


def _message(turn: Any, path: str) -> Message:
    """Return a turn as a message; where it calls tools by a key of its own, it may say nothing.

    Raises:
        RowError: Its role or its content is not what it must be.
    """
    if not isinstance(turn, dict):
        raise RowError("wrong_type", f"{path} is {kind_of(turn)}, an object is needed")
    fields = cast(dict[str, Any], turn)
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise RowError(
            "unknown_role", f"{path}.role is {role!r} (known: {', '.join(map(str, ROLES))})"
        )
    if content is None and fields.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise RowError("wrong_type", f"{path}.content is {kind_of(content)}, text is needed")
    weight = 0.0 if fields.get("tool_calls") else fields.get("weight")
    return Message(role, content, 1.0 if weight is None else weight)


def _tool_flaws(declared: Any, turns: Turns) -> Iterator[Flaw]:
    """Yield what is wrong with the tools that a row declares, and with its calls of them."""
    if declared is not None and declared != "":
        tools = _json(declared)
        if not isinstance(tools, list | dict):
            yield "tools_not_json", "tools is no JSON list of tools"
            return
    for at, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        written = [_json(call) for text in contents([turn]) for call in _TOOL_CALL.findall(text)]
        for call in (*written, *_called(turn)):
            if problem := _call_problem(call):
                yield "tool_call_not_json", f"message {at}: {problem}"


def _called(turn: dict[str, Any]) -> list[Any]:
    """Return the calls under a key of their own, as OpenAI's format has them."""
    calls = _json(turn.get("tool_calls") or [])
    if not isinstance(calls, list):
        return [None]
    return [
        call.get("function", call) if isinstance(call, dict) else None
        for call in cast(list[Any], calls)
    ]


def _call_problem(call: Any) -> str | None:
    """Return what is wrong with one call of a tool, or None."""
    if not isinstance(call, dict):
        return "a tool call is no JSON object"
    fields = cast(dict[str, Any], call)
    if not isinstance(fields.get("name"), str) or not fields["name"]:
        return "a tool call has no name"
    arguments = _json(fields.get("arguments", fields.get("parameters", {})))
    if not isinstance(arguments, dict):
        return f"the arguments of {fields['name']} are no JSON object"
    return None


def _json(value: Any) -> Any:
    """Return a value, or what its text holds as JSON; None where that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value.strip())
    except orjson.JSONDecodeError:
        return None
