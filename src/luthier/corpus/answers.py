"""Rows that judge answers: two of them ranked (preference), or a verdict on one (KTO).

In: a row, its layout and the turns of its prompt. Out: the prompt and the turns of both answers, or
the verdict. Training on one answer refuses such rows: it would learn the bad ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.contracts.conversation import Message
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.layouts import (
    ROLE_NAMES,
    ChatLayout,
    FlatLayout,
    Layout,
    Row,
    TurnsLayout,
)
from luthier.corpus.turns import read_answer

SIDES = ("chosen", "rejected")
LABELS = ("label", "kto_tag")
_SPELLED = TurnsLayout("messages", "messages", "role", "content", ROLE_NAMES)
_VERDICTS = {"true": True, "false": False}

Sides = tuple[list[Message], list[Message], list[Message]]
"""The turns of the prompt, of the better and of the worse answer."""


def has_sides(row: Row, declared: tuple[str, str] | None) -> bool:
    """Tell whether a row ranks two answers.

    Args:
        row: The fields as they were read.
        declared: The fields of the answers, where all rows are to have them.

    Raises:
        RowError: One of two declared fields is missing.
    """
    missing = [field for field in declared or SIDES if row.get(field) is None]
    if declared and missing:
        found = ", ".join(row) or "none"
        raise RowError("missing_field", f"the field {missing[0]} is missing (found: {found})")
    return not missing


def read_verdict(row: Row, declared: str | None) -> bool | None:
    """Return whether a row says that its answer is wanted; None where it says nothing.

    Args:
        row: The fields as they were read. Tables of text (csv) hold true and false as text.
        declared: The field of the verdict, where all rows are to have it.

    Raises:
        RowError: The declared field is neither true nor false.
    """
    for field in LABELS if declared is None else (declared,):
        if (verdict := _verdict(row, field)) is not None:
            return verdict
        if declared is not None:
            found = kind_of(row.get(field))
            raise RowError("wrong_type", f"{field} is {found}, true or false is needed")
    return None


def refuse_preference(row: Row, layout: Layout | None = None) -> None:
    """Refuse rows that judge answers: trained on as they are, they would teach the bad ones too.

    Args:
        row: The fields as they were read.
        layout: Where they stand, if declared.

    Raises:
        RowError: The row has `chosen` and `rejected`, or a verdict on its answer.
    """
    is_chat = isinstance(layout, TurnsLayout | FlatLayout)
    chosen, rejected = (layout.sides if is_chat else None) or SIDES
    if row.get(chosen) is not None and row.get(rejected) is not None:
        raise RowError("preference_data", f"the row has the fields {chosen} and {rejected}")
    declared = layout.label if is_chat else None
    for field in (declared,) if declared else LABELS:
        if _verdict(row, field) is not None:
            raise RowError("preference_data", f"the field {field} is a verdict on the answer")


def read_sides(row: Row, layout: ChatLayout, prompt: Sequence[Message]) -> Sides:
    """Return the turns of the prompt and of both answers.

    Args:
        row: A row that ranks answers.
        layout: Where they stand.
        prompt: The turns of the prompt beside the answers. Answers may hold it too, then as the
            turns that both begin with.

    Raises:
        RowError: An answer has no form that is known, or there are two prompts, or none.
    """
    names = layout.sides or SIDES
    chosen, rejected = (_read_side(row.get(name), name, layout) for name in names)
    holds_prompt = [side[0].role in ("system", "user") for side in (chosen, rejected)]
    is_prompt_within = isinstance(layout, TurnsLayout) and layout.turns in names
    if not any(holds_prompt):
        if is_prompt_within:
            raise RowError(
                "empty_prompt", f"{names[0]} begins with the answer, and no field holds the prompt"
            )
        return list(prompt), chosen, rejected
    num_shared = _num_shared(chosen, rejected)
    if not all(holds_prompt) or num_shared == 0:
        raise RowError("two_prompts", f"{names[0]} and {names[1]} begin with different turns")
    shared = chosen[:num_shared]
    if not is_prompt_within:
        shared = _joined(prompt, chosen, shared, names[0])
    return shared, chosen[num_shared:], rejected[num_shared:]


def _verdict(row: Row, field: str) -> bool | None:
    value = row.get(field)
    return value if isinstance(value, bool) else _VERDICTS.get(str(value).strip().lower())


def _read_side(value: Any, name: str, layout: ChatLayout) -> list[Message]:
    """Return an answer's turns; a text beside flat fields is stripped, as they are."""
    if isinstance(layout, TurnsLayout):
        return read_answer(value, layout, name)
    if isinstance(value, str):
        return [Message("assistant", value.strip())]
    return read_answer(value, _SPELLED, name)


def _num_shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return how many turns both begin with, up to one that an answer follows."""
    num_shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if _said(one) != _said(other):
            break
        num_shared += 1
    while num_shared and chosen[num_shared - 1].role not in ("user", "tool"):
        num_shared -= 1
    return num_shared


def _joined(
    prompt: Sequence[Message], whole: Sequence[Message], shared: list[Message], name: str
) -> list[Message]:
    """Return the shared turns, with the system prompt that stands beside them.

    Raises:
        RowError: The prompt beside the answers is another one.
    """
    before, within = ([turn for turn in side if turn.role == "system"] for side in (prompt, whole))
    said, within_said = (
        [_said(turn) for turn in side if turn.role != "system"] for side in (prompt, whole)
    )
    differs = any(one != other for one, other in zip(said, within_said, strict=False))
    if differs or (before and within and _said(before[0]) != _said(within[0])):
        raise RowError("two_prompts", f"{name} begins with another prompt than the row's own")
    return shared if within else [*before, *shared]


def _said(turn: Message) -> tuple[str, str, str | None]:
    return turn.role, turn.content.strip(), turn.tool_calls
