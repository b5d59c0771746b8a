from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from luthier.contracts.conversation import Message
from luthier.corpus.bad_rows import RowError
from luthier.corpus.layouts import ROLE_NAMES, TurnsLayout
from luthier.corpus.turns import check_order, read_answer, read_turns, text_of, weight_of

_MESSAGES = TurnsLayout("messages", "messages", "role", "content", ROLE_NAMES)
_SHAREGPT = TurnsLayout("sharegpt", "conversations", "from", "value", ROLE_NAMES)


def _turn(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def _order(letters: str) -> list[Message]:
    """Make messages of letters: s, u, a, t; a capital is a blank message."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [Message(roles[char.lower()], " " if char.isupper() else "x") for char in letters]  # type: ignore[arg-type]


def test_texts_are_kept_as_they_are():
    assert read_turns([_turn("user", " a \n")], _MESSAGES) == [Message("user", " a \n")]


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("bot", "assistant"),
        ("system", "system"),
        ("observation", "tool"),
        ("tool", "tool"),
    ],
)
def test_speakers(speaker: str, role: str):
    assert read_turns([{"from": speaker, "value": "x"}], _SHAREGPT)[0].role == role


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        ("x", "wrong_type", "messages is text, a list is needed"),
        (["x"], "wrong_type", r"messages\[0\] is text, an object is needed"),
        ([{"role": "user"}], "missing_field", r"messages\[0\] has no content \(found: role\)"),
        ([{}], "missing_field", r"messages\[0\] has no role \(found: nothing\)"),
        ([_turn("user", None)], "wrong_type", r"messages\[0\]\.content is null, text is needed"),
        ([_turn("user"), _turn("assistant", 5)], "wrong_type", r"\[1\]\.content is the number 5"),
        ([_turn("user", [{"type": "text"}])], "wrong_type", r"\.content is a list, text"),
        ([_turn(5)], "wrong_type", r"messages\[0\]\.role is the number 5"),  # type: ignore[arg-type]
        ([_turn("narrator")], "unknown_role", r"role is 'narrator' \(known: system, user"),
        ([_turn("assistant", tool_calls=5)], "wrong_type", r"\[0\]\.tool_calls is the number 5"),
        ([_turn("assistant", function_call={"name": "f"})], "unsupported_field", "function_call"),
        ([_turn("user", None, tool_calls=[])], "wrong_type", r"\.content is null"),
        ([{"role": "function_call"}], "missing_field", r"messages\[0\] has no content"),
        ([_turn("assistant", reasoning_content="hm")], "unsupported_field", "reasoning_content"),
        ([_turn("assistant", weight=-1)], "wrong_type", r"messages\[0\]\.weight is the number -1"),
    ],
)
def test_turns_that_cannot_be_used(value: Any, reason: str, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        read_turns(value, _MESSAGES)
    assert caught.value.reason == reason


def test_empty_extras_are_no_hindrance():
    turn = _turn("assistant", "x", tool_calls=None, reasoning_content="", name="A")
    assert read_turns([turn], _MESSAGES) == [Message("assistant", "x")]


@pytest.mark.parametrize("extra", [{}, {"content": None}, {"content": ""}])
def test_calls_of_tools_are_kept_as_json(extra: dict[str, Any]):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    (turn,) = read_turns([{"role": "assistant", "tool_calls": [call], **extra}], _MESSAGES)
    assert (turn.role, turn.content, turn.weight) == ("assistant", "", 1.0)
    assert turn.tool_calls is not None
    assert json.loads(turn.tool_calls) == [call]


def test_the_speaker_of_calls_is_the_assistant():
    call = {"name": "f", "arguments": {"x": 1}}
    (turn,) = read_turns([{"from": "function_call", "value": json.dumps(call)}], _SHAREGPT)
    assert (turn.role, turn.content) == ("assistant", "")
    assert turn.tool_calls is not None
    assert json.loads(turn.tool_calls) == [call]
    layout = replace(_SHAREGPT, call="calls")
    assert read_turns([{"from": "calls", "value": call}], layout) == [turn]


def test_turns_elsewhere_are_named_by_their_place():
    with pytest.raises(RowError, match=r"chosen\[0\]\.role is 'x'"):
        read_turns([_turn("x")], _MESSAGES, "chosen")


@pytest.mark.parametrize("value", ["a", _turn("assistant", "a"), [_turn("assistant", "a")]])
@pytest.mark.parametrize("layout", [_MESSAGES, _SHAREGPT])
def test_answers_in_a_field_of_their_own(value: Any, layout: TurnsLayout):
    assert read_answer(value, layout, "completion") == [Message("assistant", "a")]


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "wrong_type", "completion is null, text, a message or a list of them"),
        ([], "no_answer", "completion is empty"),
        ([5], "wrong_type", r"completion\[0\] is the number 5"),
    ],
)
def test_answers_that_cannot_be_used(value: Any, reason: str, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        read_answer(value, _MESSAGES, "completion")
    assert caught.value.reason == reason


@pytest.mark.parametrize("letters", ["ua", "sua", "uaua", "uatau", "uattaua"])
def test_orders_that_a_chat_has(letters: str):
    check_order(_order(letters + "a" * letters.endswith("u")), ends_with="assistant")
    check_order(_order(letters + "u" * letters.endswith("a")), ends_with="user")


@pytest.mark.parametrize(
    ("letters", "reason", "detail"),
    [
        ("uua", "role_order", "message 1 is from user, after a user message"),
        ("uaa", "role_order", "message 2 is from assistant, after a assistant"),
        ("aua", "role_order", "message 0 is from assistant, after the beginning"),
        ("usa", "role_order", "message 1 is from system, after a user message"),
        ("ssua", "role_order", "message 1 is from system, after a system message"),
        ("uta", "role_order", "message 1 is from tool, after a user message"),
        ("sa", "role_order", "message 1 is from assistant, after a system message"),
        ("", "empty_prompt", "there is no user message"),
        ("s", "empty_prompt", "there is no user message"),
        ("Ua", "empty_prompt", r"message 0 \(user\) is blank"),
        ("uaUa", "empty_prompt", r"message 2 \(user\) is blank"),
        ("uAua", "empty_turn", r"message 1 \(assistant\) is blank, and would be taught"),
        ("u", "no_answer", "there is no answer"),
        ("uau", "no_answer", "the last message is from user"),
        ("uat", "no_answer", "the last message is from tool"),
    ],
)
def test_orders_that_a_chat_has_not(letters: str, reason: str, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        check_order(_order(letters), ends_with="assistant")
    assert caught.value.reason == reason


def test_blank_answers_at_the_end_or_without_weight_are_left_to_others():
    check_order(_order("uA"), ends_with="assistant")
    silent = [Message("user", "x"), Message("assistant", "", 0.0), *_order("ua")]
    check_order(silent, ends_with="assistant")
    calling = [Message("user", "x"), Message("assistant", "", 1.0, "[]"), *_order("ta")]
    check_order(calling, ends_with="assistant")


def test_prompt_that_ends_with_the_answer():
    with pytest.raises(RowError, match="the last message is from assistant") as caught:
        check_order(_order("ua"), ends_with="user")
    assert caught.value.mend == "Remove the last answer: the model is to write it."


def test_text_of():
    assert text_of("x", "a.b") == "x"
    with pytest.raises(RowError, match=r"a\.b is an object, text is needed"):
        text_of({}, "a.b")


@pytest.mark.parametrize(
    ("holder", "weight"),
    [
        ({}, 1.0),
        ({"weight": None, "train": None, "loss": None}, 1.0),
        ({"weight": 0.5}, 0.5),
        ({"weight": "0.5"}, 0.5),
        ({"weight": ""}, 1.0),
        ({"weight": 0}, 0.0),
        ({"train": False}, 0.0),
        ({"train": True, "weight": 3}, 3.0),
        ({"loss": 0}, 0.0),
        ({"loss": False, "weight": 2}, 0.0),
        ({"loss": True}, 1.0),
    ],
)
def test_weights(holder: dict[str, Any], weight: float):
    assert weight_of(holder, "") == weight


@pytest.mark.parametrize(
    ("holder", "detail"),
    [
        ({"weight": -0.1}, "m.weight is the number -0.1, a number from 0 up is needed"),
        ({"weight": True}, "m.weight is true"),
        ({"weight": "much"}, "m.weight is 'much'"),
        ({"weight": float("inf")}, "m.weight is the number inf"),
        ({"weight": [1]}, "m.weight is a list"),
        ({"loss": -1}, "m.loss is the number -1"),
        ({"train": 0}, "m.train is the number 0, not true or false"),
    ],
)
def test_weights_that_are_none(holder: dict[str, Any], detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        weight_of(holder, "m")
    assert caught.value.reason == "wrong_type"
