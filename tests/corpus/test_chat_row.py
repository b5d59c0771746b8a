from __future__ import annotations

from typing import Any

import pytest

from luthier.contracts.conversation import Message
from luthier.corpus.bad_rows import RowError
from luthier.corpus.chat_row import missing_field, read_own_answer, read_prompt, refuse_filled
from luthier.corpus.layouts import ROLE_NAMES, FlatLayout, TurnsLayout

_FLAT = FlatLayout("alpaca", "instruction", "output")
_TURNS = TurnsLayout("messages", "messages", "role", "content", ROLE_NAMES)
_LISTS = TurnsLayout("messages", "prompt", "role", "content", ROLE_NAMES, answer="completion")


def test_prompts_of_flat_rows():
    row = {"instruction": " a", "input": "b ", "system": "s", "history": [["c", "d"]]}
    assert read_prompt(row, _FLAT) == [
        Message("system", "s"),
        *(Message("user", "c"), Message("assistant", "d")),
        Message("user", "a\nb"),
    ]
    with pytest.raises(RowError, match=r"the field instruction is missing \(found: output\)"):
        read_prompt({"output": "a"}, _FLAT)


def test_turns_hold_their_answer_or_have_it_beside_them():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    said = [Message("user", "a"), Message("assistant", "b")]
    assert read_prompt({"messages": turns, "system": "s"}, _TURNS) == [
        Message("system", "s"),
        *said,
    ]
    assert list(read_own_answer({"messages": turns}, _TURNS)) == []
    row = {"prompt": turns[:1], "completion": turns[1:]}
    assert [*read_prompt(row, _LISTS), *read_own_answer(row, _LISTS)] == said
    for layout, field in ((_TURNS, "messages"), (_LISTS, "prompt")):
        with pytest.raises(RowError, match=f"the field {field} is missing"):
            read_prompt({}, layout)


def test_answers_of_their_own():
    assert read_own_answer({"output": " a\n"}, _FLAT) == [Message("assistant", "a")]
    for layout, field in ((_FLAT, "output"), (_LISTS, "completion")):
        with pytest.raises(RowError, match=f"the field {field} is missing"):
            read_own_answer({}, layout)


@pytest.mark.parametrize(
    ("history", "detail"),
    [
        ("x", "history is text, a list of pairs is needed"),
        ([["x"]], r"history\[0\] is not a pair of prompt and answer"),
    ],
)
def test_histories_that_are_none(history: Any, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        read_prompt({"instruction": "a", "history": history}, _FLAT)
    assert caught.value.reason == "wrong_type"


def test_fields_that_would_be_left_out():
    refuse_filled({"images": [], "context": None}, ("images", "context"))
    with pytest.raises(RowError, match="the field images would be left out") as caught:
        refuse_filled({"images": ["x"]}, ("images",))
    assert caught.value.reason == "unsupported_field"
    with pytest.raises(RowError, match="the field context would be left out"):
        read_prompt({"instruction": "a", "context": "x"}, _FLAT)
    with pytest.raises(RowError, match="the field images would be left out"):
        read_prompt({"messages": [], "images": "x"}, _TURNS)


def test_missing_fields_say_what_is_there():
    error = missing_field({}, "x")
    assert (error.reason, error.detail) == ("missing_field", "the field x is missing (found: none)")
