from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from luthier.corpus.bad_rows import RowError
from luthier.corpus.layouts import (
    EXAMPLES,
    FlatLayout,
    TurnsLayout,
    declared_layout,
    find_layout,
    find_prompt_layout,
    refuse_preference,
    unknown_format,
)
from luthier.corpus.readers.source import Source

_TURN = {"role": "user", "content": "x"}


@pytest.mark.parametrize(("name", "example"), EXAMPLES.items())
def test_examples_are_of_the_format_they_stand_for(name: str, example: str):
    row = json.loads(re.sub(r" \(or .*", "", example))
    assert find_layout(row).name == name


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "completion": "b"}, FlatLayout("prompt_response", "prompt", "completion")),
        ({"prompt": "a", "answer": "b"}, FlatLayout("prompt_response", "prompt", "answer")),
        # A table with rows of two formats has all columns in each row.
        (
            {"messages": None, "instruction": "a", "output": "b"},
            FlatLayout("alpaca", "instruction", "output"),
        ),
        # Nothing but nulls: the row is of a known format, and its values are wrong.
        ({"question": None, "answer": None}, FlatLayout("question_answer", "question", "answer")),
    ],
)
def test_flat_rows(row: dict[str, Any], expected: FlatLayout):
    assert find_layout(row) == expected


@pytest.mark.parametrize(
    ("row", "field", "role", "content"),
    [
        ({"messages": [_TURN], "prompt": "x", "response": "y"}, "messages", "role", "content"),
        ({"messages": [{"from": "human", "value": "x"}]}, "messages", "from", "value"),
        ({"conversations": [_TURN]}, "conversations", "role", "content"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "conversations", "from", "value"),
        ({"conversations": []}, "conversations", "from", "value"),
        ({"messages": "text"}, "messages", "role", "content"),
    ],
)
def test_lists_of_turns_in_both_spellings(row: dict[str, Any], field, role, content):
    layout = find_layout(row)
    assert isinstance(layout, TurnsLayout)
    assert (layout.turns, layout.role, layout.content) == (field, role, content)


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"instruction": "a", "outputs": "b"}, "the field output is missing"),
        ({"prompt": "a"}, "the field response or completion or answer is missing"),
        ({"question": "a"}, "the field answer is missing"),
        ({"output": "a"}, "the field instruction is missing"),
    ],
)
def test_half_a_format_is_a_missing_field(row: dict[str, Any], detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        find_layout(row)
    assert caught.value.reason == "missing_field"
    assert ", ".join(row) in caught.value.detail


def test_unknown_format_lists_what_is_there_and_what_is_known():
    with pytest.raises(RowError, match=r"no format that is known \(found: text, id\)") as caught:
        find_layout({"text": "a", "id": 1})
    assert caught.value.reason == "unknown_format"
    assert caught.value.mend is not None
    assert all(example in caught.value.mend for example in EXAMPLES.values())
    assert "(found: none)" in unknown_format({}).detail


def test_preference_rows_are_refused():
    row = {"instruction": "a", "output": "b"}
    refuse_preference({**row, "chosen": None, "rejected": None, "label": "sports"})
    with pytest.raises(RowError, match="chosen and rejected") as caught:
        find_layout({**row, "chosen": "x", "rejected": "y"})
    assert caught.value.reason == "preference_data"
    for field in ("label", "kto_tag"):
        with pytest.raises(RowError, match=f"the field {field} is a verdict"):
            refuse_preference({**row, field: False})


def test_prompts_need_no_answer():
    assert find_prompt_layout({"prompt": "a"}).name == "prompt_response"
    assert find_prompt_layout({"instruction": "a", "input": "b"}).name == "alpaca"
    assert find_prompt_layout({"question": "a", "answer": "b"}).name == "question_answer"
    assert find_prompt_layout({"messages": [_TURN]}).name == "messages"
    with pytest.raises(RowError, match=r"no field holds a prompt \(found: text\)"):
        find_prompt_layout({"text": "a"})


def test_declared_layouts():
    path = Path("a.json")
    assert declared_layout(Source("a", path)) is None
    columns = {"prompt": "q", "query": "more", "response": "a", "system": "s", "history": "h"}
    assert declared_layout(Source("a", path, format="alpaca", columns=columns)) == FlatLayout(
        "alpaca", "q", "a", "more", "s", "h"
    )
    assert declared_layout(Source("a", path, format="sharegpt")) == TurnsLayout(
        "sharegpt",
        "conversations",
        "from",
        "value",
        {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"},
    )
    tags = {"role_tag": "r", "content_tag": "c", "user_tag": "U", "assistant_tag": "A"}
    tags |= {"system_tag": "S", "observation_tag": "O"}
    source = Source("a", path, format="sharegpt", columns={"messages": "m"}, tags=tags)
    assert declared_layout(source) == TurnsLayout(
        "sharegpt", "m", "r", "c", {"U": "user", "A": "assistant", "S": "system", "O": "tool"}
    )
