"""What a row asks and what it answers: the two texts by which rows are compared.

In: columns. Out: for each row its prompt, its answer, and its kind; rows of different kinds are
never duplicates of each other, however alike their texts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.contracts.corpus_step import Columns


@dataclass(frozen=True, slots=True)
class Scopes:
    """The texts of some rows.

    Attributes:
        prompts: Turns of the system, the user and tools, one text a row; empty for a document.
        answers: Turns of the assistant, or the chosen and the rejected answer; a document's text.
        kinds: `text`, `chat` or `pair`, and the label where a row has one: the same answer judged
            good and judged bad is a contradiction, not a copy.
    """

    prompts: list[str]
    answers: list[str]
    kinds: list[str]


def scopes_of(columns: Columns) -> Scopes:
    """Return the prompt, the answer and the kind of each row.

    Args:
        columns: Rows; `messages` is needed, what else is missing counts as empty.
    """
    messages: list[Any] = columns["messages"]
    empty = [None] * len(messages)
    found = Scopes([], [], [])
    for turns, text, chosen, rejected, label in zip(
        messages,
        columns.get("text", empty),
        columns.get("chosen", empty),
        columns.get("rejected", empty),
        columns.get("label", empty),
        strict=True,
    ):
        is_pair = chosen is not None or rejected is not None
        spoken = _turns(turns, is_answer=True)
        answers = [*spoken, *_contents(chosen), *_contents(rejected)]
        kind = "pair" if is_pair else "chat" if turns else "text"
        found.prompts.append("\n".join(_turns(turns, is_answer=False)))
        found.answers.append("\n".join(answers) if turns or is_pair else text or "")
        found.kinds.append(kind if label is None else f"{kind}:{bool(label)}")
    return found


def turn_texts(columns: Columns) -> list[list[str]]:
    """Return the text of each turn of each row, without the system's; a document is one turn.

    Args:
        columns: Rows; `messages` is needed, what else is missing counts as empty.
    """
    empty = [None] * len(columns["messages"])
    names = ("messages", "chosen", "rejected")
    rows: list[list[str]] = []
    for *spoken, text in zip(
        *(columns.get(name, empty) for name in names), columns.get("text", empty), strict=True
    ):
        found = [
            turn["content"] or ""
            for turns in spoken
            for turn in turns or ()
            if turn["role"] != "system"
        ]
        rows.append([*found, text] if text else found)
    return rows


def _turns(turns: Sequence[Mapping[str, Any]] | None, *, is_answer: bool) -> list[str]:
    return [
        turn["content"] or "" for turn in turns or () if (turn["role"] == "assistant") == is_answer
    ]


def _contents(turns: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return [turn["content"] or "" for turn in turns or ()]
