from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.corpus.layouts import (
    ROLE_NAMES,
    FlatLayout,
    RecordLayout,
    TextLayout,
    TurnsLayout,
    declared_layout,
    keys_of_turn,
    with_columns,
)
from luthier.corpus.readers.source import Source

_PATH = Path("a.json")


def test_declared_layouts():
    assert declared_layout(Source("a", _PATH)) is None
    columns = {"prompt": "q", "query": "more", "response": "a", "system": "s", "history": "h"}
    assert declared_layout(Source("a", _PATH, format="alpaca", columns=columns)) == FlatLayout(
        "alpaca", "q", "a", "more", "s", "h"
    )
    assert declared_layout(Source("a", _PATH, format="sharegpt")) == TurnsLayout(
        "sharegpt",
        "conversations",
        "from",
        "value",
        {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"},
    )
    tags = {"role_tag": "r", "content_tag": "c", "user_tag": "U", "assistant_tag": "A"}
    tags |= {"system_tag": "S", "observation_tag": "O"}
    source = Source("a", _PATH, format="sharegpt", columns={"messages": "m"}, tags=tags)
    assert declared_layout(source) == TurnsLayout(
        "sharegpt", "m", "r", "c", {"U": "user", "A": "assistant", "S": "system", "O": "tool"}
    )


def test_messages_know_the_usual_speakers_and_the_declared_ones():
    tags = {"user_tag": "customer", "function_tag": "call"}
    layout = declared_layout(Source("a", _PATH, format="messages", tags=tags))
    assert isinstance(layout, TurnsLayout)
    assert (layout.turns, layout.role, layout.content) == ("messages", "role", "content")
    assert layout.roles == {**ROLE_NAMES, "customer": "user"}
    assert layout.call == "call"


def test_texts_and_prepared_rows():
    assert declared_layout(Source("a", _PATH, format="record")) == RecordLayout()
    assert declared_layout(Source("a", _PATH, format="text")) == TextLayout()
    source = Source("a", _PATH, format="text", columns={"text": "body"})
    assert declared_layout(source) == TextLayout(text="body")


@pytest.mark.parametrize(
    ("columns", "is_text"),
    [
        ({"prompt": "text"}, True),
        ({"prompt": "content"}, True),
        ({"prompt": "q"}, False),
        ({"prompt": "text", "response": "a"}, False),
    ],
)
def test_catalogues_declare_texts_as_prompts(columns: dict[str, str], is_text: bool):
    layout = declared_layout(Source("a", _PATH, format="alpaca", columns=columns))
    assert isinstance(layout, TextLayout) == is_text


def test_declared_answers_are_needed_and_default_ones_are_not():
    flat = FlatLayout("alpaca", "instruction", "output")
    assert with_columns(flat, {}) is flat
    assert with_columns(flat, {"chosen": "good"}).sides == ("good", "rejected")
    assert with_columns(flat, {"rejected": "bad"}).sides == ("chosen", "bad")
    found = with_columns(flat, {"kto_tag": "ok", "tools": "t", "messages": "m"})
    assert (found.label, found.tools, found.sides) == ("ok", "t", None)


@pytest.mark.parametrize(
    ("turn", "is_sharegpt", "keys"),
    [
        ({"role": "user"}, True, ("role", "content")),
        ({"from": "human"}, False, ("from", "value")),
        ({}, False, ("role", "content")),
        ({}, True, ("from", "value")),
        ("text", True, ("from", "value")),
    ],
)
def test_keys_of_turns(turn: Any, is_sharegpt: bool, keys: tuple[str, str]):
    assert keys_of_turn(turn, is_sharegpt=is_sharegpt) == keys
