"""Where the parts of a row stand: what is declared of a source, as layouts.

In: a source. Out: the layout of its rows: a list of turns (`messages`, sharegpt), fields side by
side (alpaca, prompt/response, question/answer), a text, or the columns of a prepared corpus. Rows
of a source of which nothing is declared are told by their fields: `formats.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from luthier.contracts.conversation import Role
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
        tools: A field that may hold the tools that can be called.
        call: The name of a speaker whose turns are the assistant's calls of tools.
        answer: A field with the turns that answer, where the list holds the prompt alone.
        sides: The fields of the better and the worse answer, where rows must have both; None takes
            `chosen` and `rejected` where a row has them.
        label: The field of a verdict on the answer, where rows must have it; None takes `label` or
            `kto_tag` where it is true or false.
    """

    name: str
    turns: str
    role: str
    content: str
    roles: Mapping[str, Role]
    system: str = "system"
    tools: str = "tools"
    call: str = "function_call"
    answer: str | None = None
    sides: tuple[str, str] | None = None
    label: str | None = None


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
        tools: A field that may hold the tools that can be called.
        sides: As in `TurnsLayout`.
        label: As in `TurnsLayout`.
    """

    name: str
    prompt: str
    answer: str
    query: str = "input"
    system: str = "system"
    history: str = "history"
    tools: str = "tools"
    sides: tuple[str, str] | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class TextLayout:
    """A document for pre-training.

    Attributes:
        name: What the format is called in counts and messages.
        text: The field that holds it.
    """

    name: str = "text"
    text: str = "text"


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """The columns of a prepared corpus, as `contracts/corpus_step.py` has them."""

    name: str = "record"


ChatLayout = TurnsLayout | FlatLayout
Layout = ChatLayout | TextLayout | RecordLayout


def declared_layout(source: Source) -> Layout | None:
    """Return the layout that is declared for a source, or None: look at each row."""
    columns = source.columns
    match source.format:
        case "auto":
            return None
        case "record":
            return RecordLayout()
        case "text":
            return TextLayout(text=columns.get("text", "text"))
        case "alpaca":
            if set(columns) == {"prompt"} and columns["prompt"] in ("text", "content"):
                # So LLaMA-Factory's catalogue declares data for pre-training.
                return TextLayout(text=columns["prompt"])
            layout: ChatLayout = FlatLayout("alpaca", "instruction", "output")
        case "messages":
            roles: Mapping[str, Role] = {**ROLE_NAMES, **_tagged(source.tags, "user", "assistant")}
            layout = TurnsLayout("messages", "messages", "role", "content", roles)
        case "sharegpt":
            roles = _tagged(source.tags, "human", "gpt")
            layout = TurnsLayout("sharegpt", "conversations", "from", "value", roles)
    if isinstance(layout, TurnsLayout):
        tags = source.tags
        layout = replace(
            layout,
            role=tags.get("role_tag", layout.role),
            content=tags.get("content_tag", layout.content),
            call=tags.get("function_tag", layout.call),
        )
    return with_columns(layout, columns)


def with_columns(layout: ChatLayout, columns: Mapping[str, str]) -> ChatLayout:
    """Return a layout with the names of fields that are declared, by the words of dataset_info.

    Args:
        layout: Where the parts stand otherwise.
        columns: Names by word. Words that the layout has no part for are passed over.
    """
    words: Mapping[str, str] = {"system": "system", "tools": "tools", "kto_tag": "label"}
    if isinstance(layout, TurnsLayout):
        words = {**words, "messages": "turns"}
    else:
        words = {**words, "prompt": "prompt", "response": "answer"}
        words = {**words, "query": "query", "history": "history"}
    given: dict[str, Any] = {part: columns[word] for word, part in words.items() if word in columns}
    if "chosen" in columns or "rejected" in columns:
        given["sides"] = (columns.get("chosen", "chosen"), columns.get("rejected", "rejected"))
    return replace(layout, **given) if given else layout


def keys_of_turn(turn: Any, *, is_sharegpt: bool = False) -> tuple[str, str]:
    """Return the keys of speaker and text that a turn has, of the two spellings that are known.

    Args:
        turn: A turn, or anything else.
        is_sharegpt: Which spelling it is where the turn does not tell.
    """
    keys: Any = turn if isinstance(turn, dict) else {}
    if "role" not in keys and ("from" in keys or is_sharegpt):
        return "from", "value"
    return "role", "content"


def _tagged(tags: Mapping[str, str], user: str, assistant: str) -> dict[str, Role]:
    """Return the names of speakers that tags declare."""
    return {
        tags.get("user_tag", user): "user",
        tags.get("assistant_tag", assistant): "assistant",
        tags.get("system_tag", "system"): "system",
        tags.get("observation_tag", "observation"): "tool",
    }
