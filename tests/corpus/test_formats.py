from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from luthier.corpus.bad_rows import RowError
from luthier.corpus.formats import (
    EXAMPLES,
    OTHER_EXAMPLES,
    find_layout,
    find_prompt_layout,
    find_record_layout,
    layout_finder,
    no_document,
    text_layout_finder,
    unknown_format,
)
from luthier.corpus.layouts import FlatLayout, RecordLayout, TextLayout, TurnsLayout
from luthier.corpus.readers.source import Source

_TURN = {"role": "user", "content": "x"}
_ALPACA = {"instruction": "Name a colour.", "input": "", "output": "Blue."}


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


def test_prompts_need_no_answer():
    assert find_prompt_layout({"prompt": "a"}).name == "prompt_response"
    assert find_prompt_layout({"instruction": "a", "input": "b"}).name == "alpaca"
    assert find_prompt_layout({"question": "a", "answer": "b"}).name == "question_answer"
    assert find_prompt_layout({"messages": [_TURN]}).name == "messages"
    with pytest.raises(RowError, match=r"no field holds a prompt \(found: text\)"):
        find_prompt_layout({"text": "a"})


@pytest.mark.parametrize("example", OTHER_EXAMPLES.values())
def test_examples_of_other_stages_are_found_and_no_training_data(example: str):
    row = json.loads(re.sub(r" \(or .*", "", example))
    find_record_layout(row)
    with pytest.raises(RowError) as caught:
        find_layout(row)
    assert caught.value.reason in ("preference_data", "unknown_format")


def test_texts():
    assert find_record_layout({"text": "a", "url": "b"}) == TextLayout()
    # Conversations come first: alpaca tables have the whole prompt once more as `text`.
    row = {"instruction": "a", "output": "b", "text": "a b"}
    assert find_record_layout(row).name == "alpaca"
    # Half a conversation is no text, and so is what others call a text.
    with pytest.raises(RowError, match="the field response or completion"):
        find_record_layout({"prompt": "a", "text": "b"})
    with pytest.raises(RowError, match="no format that is known") as caught:
        find_record_layout({"content": "a"})
    assert caught.value.mend is not None
    assert all(example in caught.value.mend for example in OTHER_EXAMPLES.values())
    assert find_record_layout({"content": "a"}, {"text": "content"}) == TextLayout(text="content")


def test_training_says_what_texts_are_for():
    with pytest.raises(RowError) as caught:
        find_layout({"text": "a"})
    assert caught.value.mend is not None
    assert "Rows of plain text are learned by stage: pt." in caught.value.mend


def test_documents_are_found_by_one_field_whatever_else_a_row_holds():
    path = Path("a.jsonl")
    # What a chat would be by its fields is a document here, for a document is asked for.
    assert text_layout_finder(Source("a", path=path))({**_ALPACA, "text": "a"}) == TextLayout()
    declared = text_layout_finder(Source("a", path=path, columns={"text": "body"}))
    assert declared({"text": "a"}) == TextLayout(text="body")
    of_corpus = text_layout_finder(Source("a", path=path, format="record"))
    assert of_corpus({"id": "a#1"}) == RecordLayout()
    as_text = Source("a", path=path, format="alpaca", columns={"prompt": "content"})
    assert text_layout_finder(as_text)({}) == TextLayout(text="content")
    for source, row in (
        (Source("a", path=path), _ALPACA),
        (Source("a", path=path, format="sharegpt"), {"text": "a"}),
    ):
        with pytest.raises(RowError, match=r"no document .* in a field text") as caught:
            text_layout_finder(source)(row)
        assert caught.value.reason == "unknown_format"
    assert "(found: none)" in no_document({}).detail


_SIDES = {"chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "name", "place"),
    [
        ({"prompt": "q", **_SIDES}, "prompt_response", "prompt"),
        ({"instruction": "q", "input": "", **_SIDES}, "alpaca", "instruction"),
        ({"question": "q", **_SIDES}, "question_answer", "question"),
        ({"messages": [_TURN], **_SIDES}, "messages", "messages"),
        ({"conversations": [{"from": "human", "value": "q"}], **_SIDES}, "sharegpt", None),
        ({"prompt": [_TURN], **_SIDES}, "messages", "prompt"),
        ({"chosen": [_TURN], "rejected": [_TURN]}, "messages", "chosen"),
    ],
)
def test_where_the_prompt_of_ranked_answers_stands(row: dict[str, Any], name: str, place: Any):
    layout = find_record_layout(row)
    assert layout.name == name
    if isinstance(layout, FlatLayout):
        assert layout.prompt == place
    else:
        assert isinstance(layout, TurnsLayout)
        assert layout.turns == place or place is None


def test_ranked_answers_without_a_prompt():
    with pytest.raises(RowError, match="ranks answers, and no field holds their prompt") as caught:
        find_record_layout(_SIDES)
    assert caught.value.reason == "missing_field"


def test_prompt_and_answer_as_lists_of_turns():
    layout = find_record_layout({"prompt": [_TURN], "completion": [_TURN]})
    assert isinstance(layout, TurnsLayout)
    assert (layout.turns, layout.answer) == ("prompt", "completion")


def test_declared_fields_of_rows_that_are_told_by_their_fields():
    row = {"chat": [{"from": "human", "value": "x"}], "sys": "s"}
    layout = find_record_layout(row, {"messages": "chat", "system": "sys"})
    assert isinstance(layout, TurnsLayout)
    assert (layout.turns, layout.role, layout.system) == ("chat", "from", "sys")
    flat = find_record_layout({"q": "a", "r": "b"}, {"prompt": "q", "response": "r"})
    assert isinstance(flat, FlatLayout)
    assert (flat.prompt, flat.answer) == ("q", "r")
    ranked = find_record_layout({"q": "a"}, {"prompt": "q", "chosen": "c", "rejected": "r"})
    assert isinstance(ranked, FlatLayout)
    assert ranked.sides == ("c", "r")


def test_finder_of_a_source():
    path = Path("a.json")
    assert layout_finder(Source("a", path, format="alpaca"))({"x": 1}).name == "alpaca"
    find = layout_finder(Source("a", path, columns={"text": "body"}), any_kind=True)
    assert find({"body": "x"}) == TextLayout(text="body")
    assert layout_finder(Source("a", path), any_kind=True)({"text": "x"}) == TextLayout()
    with pytest.raises(RowError, match="no format that is known"):
        layout_finder(Source("a", path))({"text": "x"})
