from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.contracts.conversation import Message, Origin, Record
from luthier.corpus.bad_rows import RowError
from luthier.corpus.layouts import FlatLayout, RecordLayout, TextLayout, TurnsLayout
from luthier.corpus.readers.source import Source
from luthier.corpus.record import columns_of, to_table
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.unify import (
    RowColumns,
    conversation_from_row,
    document_from_row,
    prompt_from_row,
    record_from_row,
)

_ORIGIN = Origin("a.json", 0, 1)
_ALPACA = {"instruction": "Name a colour.", "input": "", "output": "Blue."}


def _pairs(row: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    found = conversation_from_row(row, _ORIGIN, **options)
    return [(message.role, message.content) for message in found.messages]


def _lecture(example: dict[str, str]) -> list[tuple[str, str]]:
    """Build the messages with the lecture's own code (step 3)."""
    user_prompt = example["instruction"].strip()
    if example["input"]:
        user_prompt += "\n" + example["input"].strip()
    return [("user", user_prompt), ("assistant", example["output"].strip())]


_TEXT = st.text(min_size=1).filter(str.strip)


@given(st.fixed_dictionaries({"instruction": _TEXT, "input": st.just("") | _TEXT, "output": _TEXT}))
def test_alpaca_as_in_the_lecture(row: dict[str, str]):
    assert _pairs(row) == _lecture(row)


def test_blank_input_leaves_no_trailing_line():
    assert _pairs({**_ALPACA, "input": " "})[0] == ("user", "Name a colour.")
    assert _pairs({**_ALPACA, "input": None})[0] == ("user", "Name a colour.")
    assert _pairs({**_ALPACA, "instruction": "", "input": "x"})[0] == ("user", "\nx")


def test_alpaca_with_system_and_history():
    row = {**_ALPACA, "system": "Be kind.", "history": [["a ", "b"], ["c", " d"]]}
    assert _pairs(row) == [
        ("system", "Be kind."),
        *[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        *[("user", "Name a colour."), ("assistant", "Blue.")],
    ]
    assert _pairs({**_ALPACA, "system": "", "history": []}) == _lecture(_ALPACA)
    assert _pairs({**_ALPACA, "system": None, "history": ""}) == _lecture(_ALPACA)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "a"},
        {"prompt": "q", "completion": " a"},
        {"prompt": "q", "answer": "a"},
        {"question": "q", "answer": "a\n"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_formats_that_are_told_by_their_fields(row: dict[str, Any]):
    assert _pairs(row) == [("user", "q"), ("assistant", "a")]


_CHAT = st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=4)


@given(_CHAT, st.none() | _TEXT)
def test_messages_and_sharegpt_are_the_same_record(chat: list[tuple[str, str]], system: str | None):
    turns = [("system", system)] if system else []
    for asked, answered in chat:
        turns += [("user", asked), ("assistant", answered)]
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    messages = {"messages": [{"role": role, "content": text} for role, text in turns]}
    sharegpt = {"conversations": [{"from": names[role], "value": text} for role, text in turns]}
    assert _pairs(messages) == _pairs(sharegpt) == turns


def test_system_beside_the_turns():
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert _pairs({"system": "s", "conversations": turns})[0] == ("system", "s")
    turns = [{"from": "system", "value": "t"}, *turns]
    with pytest.raises(RowError, match="message 1 is from system, after a system message"):
        _pairs({"system": "s", "conversations": turns})


def test_declared_layouts():
    flat = FlatLayout("alpaca", prompt="q", answer="a", query="more")
    assert _pairs({"q": "x", "more": "y", "a": "z"}, layout=flat) == [
        ("user", "x\ny"),
        ("assistant", "z"),
    ]
    for row, field in (({"a": "z"}, "q"), ({"q": "x"}, "a")):
        with pytest.raises(RowError, match=rf"the field {field} is missing \(found: ") as caught:
            _pairs(row, layout=flat)
        assert caught.value.reason == "missing_field"
    turns = TurnsLayout("sharegpt", "m", "r", "c", {"U": "user", "A": "assistant"})
    row = {"m": [{"r": "U", "c": "x"}, {"r": "A", "c": "y"}]}
    assert _pairs(row, layout=turns) == [("user", "x"), ("assistant", "y")]
    with pytest.raises(RowError, match="the field m is missing"):
        _pairs({"x": 1}, layout=turns)
    with pytest.raises(RowError, match="chosen and rejected"):
        _pairs({**row, "chosen": "x", "rejected": "y"}, layout=turns)


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"instruction": None}, "wrong_type", "instruction is null, text is needed"),
        ({"output": 5}, "wrong_type", "output is the number 5, text is needed"),
        ({"input": ["x"]}, "wrong_type", "input is a list, text is needed"),
        ({"system": {}}, "wrong_type", "system is an object, text is needed"),
        ({"history": "x"}, "wrong_type", "history is text, a list of pairs is needed"),
        ({"history": [["x"]]}, "wrong_type", r"history\[0\] is not a pair of prompt and answer"),
        ({"history": [["x", None]]}, "wrong_type", r"history\[0\]\[1\] is null"),
        ({"instruction": " "}, "empty_prompt", r"message 0 \(user\) is blank"),
        ({"tools": [{}]}, "unsupported_field", "the field tools would be left out"),
        ({"context": "x"}, "unsupported_field", "the field context would be left out"),
        ({"weight": "x"}, "wrong_type", "weight is 'x', a number from 0 up is needed"),
        ({"chosen": "x", "rejected": "y"}, "preference_data", "chosen and rejected"),
    ],
)
def test_alpaca_rows_that_cannot_be_used(change: dict[str, Any], reason: str, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        _pairs({**_ALPACA, **change})
    assert caught.value.reason == reason


def test_rows_that_end_without_an_answer_are_refused_not_cut():
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    with pytest.raises(RowError, match="the last message is from user") as caught:
        _pairs({"messages": turns})
    assert caught.value.reason == "no_answer"


def test_weights_of_turns_rows_and_tasks_multiply():
    columns = RowColumns(task="kind", task_weights={"math": 0.5})
    row = {**_ALPACA, "weight": 3, "kind": "math"}
    found = conversation_from_row(row, _ORIGIN, columns=columns)
    assert (found.weight, found.task, found.origin) == (1.5, "math", _ORIGIN)
    assert conversation_from_row({**row, "kind": "x"}, _ORIGIN, columns=columns).weight == 3
    found = conversation_from_row({**row, "kind": None}, _ORIGIN, columns=columns)
    assert (found.weight, found.task) == (3, None)
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "train": False},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0.25},
    ]
    messages = conversation_from_row({"messages": turns}, _ORIGIN).messages
    assert [message.weight for message in messages] == [1, 0, 1, 0.25]


def test_category():
    columns = RowColumns(category="kind")
    found = conversation_from_row({**_ALPACA, "kind": 3}, _ORIGIN, columns=columns)
    assert found.category == "3"
    for change in ({}, {"kind": None}, {"kind": ""}):
        with pytest.raises(RowError, match=r"the field kind \(stratify_by\) is missing") as caught:
            conversation_from_row({**_ALPACA, **change}, _ORIGIN, columns=columns)
        assert caught.value.reason == "missing_field"
    with pytest.raises(RowError, match="kind is a list, a name is needed"):
        conversation_from_row({**_ALPACA, "kind": []}, _ORIGIN, columns=columns)


def test_columns_of_settings():
    settings = CorpusSettings(stratify_by="kind", task_column="t", task_weights={"a": 2})
    assert RowColumns.of(settings) == RowColumns("t", {"a": 2}, None)
    assert RowColumns.of(settings.model_copy(update={"val_size": 0.1})).category == "kind"
    assert RowColumns.of(CorpusSettings(val_size=0.1)) == RowColumns()
    source = Source("a", path=Path("a.json"), columns={"category": "topic"}, category="x")
    found = RowColumns.of(CorpusSettings(), source)
    assert (found.source_category, found.fixed_category) == ("topic", "x")


_QUESTION = Message("user", "q")
_GOOD, _BAD = Message("assistant", "a"), Message("assistant", "b")
_MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
_OTHER = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]
_PAIR = {"chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "q", "input": "", **_PAIR},
        {"instruction": "q", "output": "seen", **_PAIR},
        {"prompt": "q", **_PAIR},
        {"question": "q", **_PAIR},
        {"messages": _MESSAGES[:1], **_PAIR},
        {"messages": _MESSAGES[:1], "chosen": _MESSAGES[1], "rejected": _OTHER[1]},
        {"messages": _MESSAGES[:1], "chosen": _MESSAGES[1:], "rejected": _OTHER[1:]},
        {
            "conversations": _SHAREGPT[:1],
            "chosen": _SHAREGPT[1],
            "rejected": {"from": "gpt", "value": "b"},
        },
        {"prompt": _MESSAGES[:1], "chosen": _MESSAGES[1:], "rejected": _OTHER[1:]},
        {"chosen": _MESSAGES, "rejected": _OTHER},
        {"prompt": "q", "chosen": _MESSAGES, "rejected": _OTHER, "messages": _MESSAGES},
    ],
)
def test_preference_rows(row: dict[str, Any]):
    assert record_from_row(row, _ORIGIN) == Record(
        _ORIGIN, (_QUESTION,), chosen=(_GOOD,), rejected=(_BAD,)
    )
    with pytest.raises(RowError) as caught:
        conversation_from_row(row, _ORIGIN)
    assert caught.value.reason == "preference_data"


def test_both_sides_of_a_preference_are_conversations():
    row = {"messages": _MESSAGES, "chosen": "a", "rejected": "b"}
    with pytest.raises(RowError, match="message 2 is from assistant, after a assistant message"):
        record_from_row(row, _ORIGIN)
    flat = FlatLayout("alpaca", "instruction", "output", sides=("good", "bad"))
    found = record_from_row({"instruction": "q", "good": "a", "bad": "b"}, _ORIGIN, layout=flat)
    assert found.chosen == (_GOOD,)
    with pytest.raises(RowError, match=r"the field bad is missing \(found: instruction, good\)"):
        record_from_row({"instruction": "q", "good": "a"}, _ORIGIN, layout=flat)


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, True),
        ({"prompt": "q", "completion": "a", "label": "false"}, False),
        ({"messages": _MESSAGES, "kto_tag": False}, False),
        ({"instruction": "q", "output": "a", "kto_tag": "True"}, True),
        ({"prompt": _MESSAGES[:1], "completion": _MESSAGES[1:], "label": False}, False),
    ],
)
def test_judged_answers(row: dict[str, Any], label: bool):
    assert record_from_row(row, _ORIGIN) == Record(_ORIGIN, (_QUESTION, _GOOD), label=label)
    with pytest.raises(RowError, match="is a verdict on the answer") as caught:
        conversation_from_row(row, _ORIGIN)
    assert caught.value.reason == "preference_data"


def test_texts():
    row = {"text": " a\n", "weight": 0.5, "kind": "web"}
    columns = RowColumns(task="kind", task_weights={"web": 3})
    found = record_from_row(row, _ORIGIN, columns=columns)
    assert found == Record(_ORIGIN, text=" a\n", weight=0.5, task="web")
    with pytest.raises(RowError, match="text is the number 5, text is needed"):
        record_from_row({"text": 5}, _ORIGIN)
    layout = TextLayout(text="body")
    with pytest.raises(RowError, match=r"the field body is missing \(found: text\)"):
        record_from_row({"text": "a"}, _ORIGIN, layout=layout)
    for declared in (None, layout):
        with pytest.raises(RowError, match="no format that is known") as caught:
            conversation_from_row({"text": "a"}, _ORIGIN, layout=declared)
        assert caught.value.reason == "unknown_format"


_CALL = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    ("turns", "place"),
    [
        (
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                    {"role": "tool", "content": "r"},
                    {"role": "assistant", "content": "a"},
                ]
            },
            r"messages\[1\]\.tool_calls is not supported",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "function_call", "value": json.dumps(_CALL)},
                    {"from": "observation", "value": "r"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            r"conversations\[1\]\.value is not supported",
        ),
    ],
)
def test_tools_and_calls_are_kept_and_not_trained_on(turns: dict[str, Any], place: str):
    tools = [{"name": "f", "parameters": {}}]
    record = record_from_row({**turns, "tools": tools, "system": "s"}, _ORIGIN)
    assert record.tools is not None
    assert json.loads(record.tools) == tools
    assert [turn.role for turn in record.messages] == [
        *("system", "user", "assistant", "tool", "assistant")
    ]
    calls = record.messages[2].tool_calls
    assert calls is not None
    assert json.loads(calls) == [_CALL]
    with pytest.raises(RowError, match="the field tools would be left out"):
        conversation_from_row({**turns, "tools": tools}, _ORIGIN)
    for more in ({}, {"system": "s"}):
        with pytest.raises(RowError, match=place) as caught:
            conversation_from_row({**turns, **more}, _ORIGIN)
        assert caught.value.reason == "unsupported_field"


def test_a_prompt_must_not_call_tools_either():
    calling = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    turns = [_MESSAGES[0], calling, {"role": "tool", "content": "r"}]
    with pytest.raises(RowError, match=r"messages\[1\]\.tool_calls is not supported"):
        prompt_from_row({"messages": turns})
    with pytest.raises(RowError, match="the field tools would be left out"):
        prompt_from_row({"messages": _MESSAGES[:1], "tools": [_CALL]})


def _prepared(record: Record) -> dict[str, Any]:
    return to_table(columns_of([record], "a.json")).to_pylist()[0]


def test_prepared_rows_are_records_and_train():
    record = Record(Origin("raw/a.json", 4, 9), (_QUESTION, _GOOD), task="math", category="c")
    layout, columns = RecordLayout(), RowColumns(task="kind", task_weights={"math": 0.5})
    row = {**_prepared(record), "kind": "other"}
    assert record_from_row(row, _ORIGIN, layout=layout, columns=columns) == record
    found = conversation_from_row(row, _ORIGIN, layout=layout, columns=columns)
    assert (found.origin, found.task, found.category) == (record.origin, "math", "c")
    assert found.weight == 0.5


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record(_ORIGIN, (_QUESTION,), chosen=(_GOOD,), rejected=(_BAD,)), "preference_data"),
        (Record(_ORIGIN, (_QUESTION, _GOOD), label=True), "preference_data"),
        (Record(_ORIGIN, text="a"), "unknown_format"),
        (Record(_ORIGIN, (_QUESTION, _GOOD), tools="[{}]"), "unsupported_field"),
        (Record(_ORIGIN, (_QUESTION, Message("assistant", "", 1, "[]"))), "unsupported_field"),
    ],
)
def test_prepared_rows_of_other_stages(record: Record, reason: str):
    assert record_from_row(_prepared(record), _ORIGIN, layout=RecordLayout()) == record
    with pytest.raises(RowError) as caught:
        conversation_from_row(_prepared(record), _ORIGIN, layout=RecordLayout())
    assert caught.value.reason == reason


def test_documents_weigh_what_their_task_weighs():
    columns = RowColumns(task="site", task_weights={"wiki": 0.5})
    row = {"text": " a ", "site": "wiki", "weight": 3}
    found = document_from_row(row, _ORIGIN, layout=TextLayout(), columns=columns)
    assert found == Record(_ORIGIN, text=" a ", task="wiki", weight=1.5)
    other = document_from_row({**row, "site": "x"}, _ORIGIN, layout=TextLayout(), columns=columns)
    assert other.weight == 3
    assert document_from_row({"text": ""}, _ORIGIN, layout=TextLayout()).text == ""


def test_documents_of_a_prepared_corpus():
    record = Record(Origin("raw/a.txt", 4, 9), text="a", category="c")
    assert document_from_row(_prepared(record), _ORIGIN, layout=RecordLayout()) == record
    talk = _prepared(Record(_ORIGIN, (_QUESTION, _GOOD)))
    for row in (talk, {**talk, "text": "a"}):
        with pytest.raises(RowError, match="holds no document for pre-training"):
            document_from_row(row, _ORIGIN, layout=RecordLayout())


def test_prepared_rows_that_say_nothing():
    with pytest.raises(RowError, match="there is no user message"):
        record_from_row(_prepared(Record(_ORIGIN)), _ORIGIN, layout=RecordLayout())


def test_category_of_the_source():
    row = {**_ALPACA, "topic": "x", "kind": "y"}

    def category(**columns: Any) -> str | None:
        return record_from_row(row, _ORIGIN, columns=RowColumns(**columns)).category

    assert category() is None
    assert category(source_category="topic") == "x"
    assert category(source_category="gone") is None
    assert category(fixed_category="z", source_category="topic") == "z"
    assert category(category="kind") == "y"
    assert category(category="gone", source_category="topic") == "x"
    with pytest.raises(RowError, match=r"the field gone \(stratify_by\) is missing"):
        category(category="gone", source_category="away")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a\nb"},
        {"prompt": "a", "input": "b"},
        {"instruction": "a", "input": "b"},
        {"instruction": "a", "input": "b", "output": "c"},
        {"question": "a\nb", "answer": "c"},
        {"messages": [{"role": "user", "content": "a\nb"}]},
        {"conversations": [{"from": "human", "value": "a\nb"}]},
    ],
)
def test_prompts(row: dict[str, Any]):
    assert prompt_from_row(row) == (Message("user", "a\nb"),)


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"text": "a"}, "no field holds a prompt"),
        ({"prompt": 5}, "prompt is the number 5, text is needed"),
        ({"prompt": " "}, r"message 0 \(user\) is blank"),
        ({"messages": []}, "there is no user message"),
        (
            {"messages": [{"role": r, "content": "x"} for r in ("user", "assistant")]},
            "the last message is from assistant",
        ),
    ],
)
def test_rows_without_a_prompt(row: dict[str, Any], detail: str):
    with pytest.raises(RowError, match=detail):
        prompt_from_row(row)
