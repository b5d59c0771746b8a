from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.contracts.conversation import Message, Origin
from luthier.corpus.bad_rows import RowError
from luthier.corpus.layouts import FlatLayout, TurnsLayout
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.unify import RowColumns, conversation_from_row, prompt_from_row

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
