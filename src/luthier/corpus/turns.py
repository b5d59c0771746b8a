"""A list of turns, as messages: texts checked, speakers named alike, order checked.

Calls of tools are kept as JSON text. Refuses what could only be kept by changing it: an unknown
speaker, content that is no text. A row that is refused says which turn is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from luthier.contracts.conversation import Message, Role
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.layouts import ROLE_NAMES, TurnsLayout, keys_of_turn
from luthier.corpus.tool_calls import read_calls

# Parts of a turn that no template gets to see here; left out they would change what is taught.
_UNSUPPORTED = ("function_call", "reasoning_content", "images", "audio")

_FOLLOWS: Mapping[Role | None, frozenset[Role]] = {
    None: frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"assistant"}),
    "assistant": frozenset({"user", "tool"}),
    "tool": frozenset({"tool", "assistant"}),
}


def read_turns(value: Any, layout: TurnsLayout, path: str | None = None) -> list[Message]:
    """Return the messages of a list of turns.

    Args:
        value: What stands under `layout.turns`.
        layout: The names of keys and speakers.
        path: Where it stands, if not under `layout.turns`.

    Raises:
        RowError: It is no list of turns, or a turn has a wrong type, speaker, key or weight.
    """
    path = path or layout.turns
    if not isinstance(value, list):
        raise RowError("wrong_type", f"{path} is {kind_of(value)}, a list is needed")
    turns = cast(list[Any], value)
    return [read_turn(turn, f"{path}[{at}]", layout) for at, turn in enumerate(turns)]


def read_turn(value: Any, path: str, layout: TurnsLayout) -> Message:
    """Return one turn as a message; see `read_turns`.

    Raises:
        RowError: It has a wrong type, speaker, key or weight.
    """
    if not isinstance(value, dict):
        raise RowError("wrong_type", f"{path} is {kind_of(value)}, an object is needed")
    turn = cast(dict[str, Any], value)
    calls = read_calls(turn.get("tool_calls"), f"{path}.tool_calls")
    for key in (layout.role, layout.content):
        if key not in turn and not (calls and key == layout.content):
            raise RowError(
                "missing_field", f"{path} has no {key} (found: {', '.join(turn) or 'nothing'})"
            )
    speaker = text_of(turn[layout.role], f"{path}.{layout.role}")
    for key in _UNSUPPORTED:
        if turn.get(key):
            raise RowError("unsupported_field", f"{path}.{key} is not supported")
    role = layout.roles.get(speaker)
    content: Any = turn.get(layout.content)
    if role is None and speaker == layout.call:
        role, content = "assistant", ""
        calls = read_calls(turn.get(layout.content), f"{path}.{layout.content}")
    if role is None:
        known = ", ".join(layout.roles)
        raise RowError("unknown_role", f"{path}.{layout.role} is {speaker!r} (known: {known})")
    if content is None and calls:
        content = ""
    text = text_of(content, f"{path}.{layout.content}")
    return Message(role, text, weight_of(turn, path), calls)


def read_answer(value: Any, layout: TurnsLayout, path: str) -> list[Message]:
    """Return the turns of an answer in a field of its own: a text, a turn or a list of them.

    Args:
        value: What stands there.
        layout: How the turns of the prompt are spelled; those of the answer may be otherwise.
        path: Where it stands.

    Raises:
        RowError: It is nothing of the kind, is empty, or a turn can't be used; see `read_turns`.
    """
    if isinstance(value, str):
        return [Message("assistant", value)]
    if not isinstance(value, list | dict):
        raise RowError(
            "wrong_type", f"{path} is {kind_of(value)}, text, a message or a list of them is needed"
        )
    if not value:
        raise RowError("no_answer", f"{path} is empty")
    first: Any = value[0] if isinstance(value, list) else value
    if not (isinstance(first, dict) and layout.role in first):
        role, content = keys_of_turn(first)
        layout = replace(layout, role=role, content=content, roles={**ROLE_NAMES, **layout.roles})
    if isinstance(value, dict):
        return [read_turn(value, path, layout)]
    return read_turns(value, layout, path)


def check_order(messages: Sequence[Message], *, ends_with: Role) -> None:
    """Refuse an order of turns that no chat has.

    Args:
        messages: All turns.
        ends_with: `assistant` for training rows, `user` for prompts.

    Raises:
        RowError: The order is not: a system message or none, then user and assistant in turns
            (with tool results before an answer); or the last one is not `ends_with`; or a turn
            that should say something is blank.
    """
    before: Role | None = None
    for at, message in enumerate(messages):
        if message.role not in _FOLLOWS[before]:
            place = f"a {before} message" if before else "the beginning"
            raise RowError("role_order", f"message {at} is from {message.role}, after {place}")
        if not message.content.strip() and not message.tool_calls:
            _refuse_blank(message, at, is_last=at == len(messages) - 1)
        before = message.role
    roles = {message.role for message in messages}
    if "user" not in roles:
        raise RowError("empty_prompt", "there is no user message")
    if ends_with == "assistant" and before != "assistant":
        what = (
            f"the last message is from {before}" if "assistant" in roles else "there is no answer"
        )
        raise RowError("no_answer", what)
    if ends_with == "user" and before not in {"user", "tool"}:
        raise RowError(
            "role_order",
            f"the last message is from {before}, a prompt ends with user",
            mend="Remove the last answer: the model is to write it.",
        )


def _refuse_blank(message: Message, at: int, *, is_last: bool) -> None:
    """Refuse blank turns; a blank last answer is left to `min_answer_chars`."""
    if message.role == "user":
        raise RowError("empty_prompt", f"message {at} (user) is blank")
    if message.role == "assistant" and message.weight > 0 and not is_last:
        raise RowError("empty_turn", f"message {at} (assistant) is blank, and would be taught")


def text_of(value: Any, path: str) -> str:
    """Return a value that must be text.

    Raises:
        RowError: It is something else.
    """
    if not isinstance(value, str):
        raise RowError("wrong_type", f"{path} is {kind_of(value)}, text is needed")
    return value


def weight_of(holder: Mapping[str, Any], path: str) -> float:
    """Return the loss weight that a row or a turn gives itself, 1 where it gives none.

    `weight` is a number from 0 up; `train` and `loss` are switches, as other toolkits have them.
    Where several stand, their product counts.

    Raises:
        RowError: One of them is no such value.
    """
    prefix = f"{path}." if path else ""
    weight = 1.0
    for key in ("weight", "loss"):
        if (value := holder.get(key)) is not None and value != "":
            weight *= _number(value, f"{prefix}{key}", is_switch=key == "loss")
    if (value := holder.get("train")) is not None:
        if not isinstance(value, bool):
            raise RowError("wrong_type", f"{prefix}train is {kind_of(value)}, not true or false")
        weight *= value
    return weight


def margin_of(row: Mapping[str, Any]) -> float | None:
    """Return by how much the better of a row's answers is better; None where it doesn't say.

    Raises:
        RowError: `margin` is no number from 0 up.
    """
    value = row.get("margin")
    return None if value is None or value == "" else _number(value, "margin", is_switch=False)


def _number(value: Any, path: str, *, is_switch: bool) -> float:
    # Tables of text (csv) hold numbers as text.
    try:
        is_number = isinstance(value, int | float | str) and (
            is_switch or not isinstance(value, bool)
        )
        number = float(value) if is_number else math.nan
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        shown = repr(value) if isinstance(value, str) else kind_of(value)
        raise RowError("wrong_type", f"{path} is {shown}, a number from 0 up is needed")
    return number
