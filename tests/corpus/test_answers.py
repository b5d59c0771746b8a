from __future__ import annotations

from typing import Any

import pytest

from luthier.contracts.conversation import Message
from luthier.corpus.answers import has_sides, read_sides, read_verdict, refuse_preference
from luthier.corpus.bad_rows import RowError
from luthier.corpus.formats import find_layout, find_record_layout
from luthier.corpus.layouts import ROLE_NAMES, FlatLayout, TurnsLayout

_FLAT = FlatLayout("prompt_response", "prompt", "response")
_TURNS = TurnsLayout("messages", "messages", "role", "content", ROLE_NAMES)
_SHAREGPT = TurnsLayout("sharegpt", "conversations", "from", "value", ROLE_NAMES)
_PROMPT = [Message("user", "q")]


def _turns(letters: str) -> list[dict[str, str]]:
    """Make turns of letters: s, u, a; what is said is the role and the letter's place."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[c.lower()], "content": f"{c}{at}"} for at, c in enumerate(letters)]


def test_preference_rows_are_refused():
    row = {"instruction": "a", "output": "b"}
    refuse_preference({**row, "chosen": None, "rejected": None, "label": "sports"})
    with pytest.raises(RowError, match="chosen and rejected") as caught:
        find_layout({**row, "chosen": "x", "rejected": "y"})
    assert caught.value.reason == "preference_data"
    for field in ("label", "kto_tag"):
        with pytest.raises(RowError, match=f"the field {field} is a verdict"):
            refuse_preference({**row, field: False})


def test_preference_rows_are_refused_under_declared_names_too():
    layout = FlatLayout("alpaca", "q", "a", sides=("good", "bad"), label="ok")
    refuse_preference({"chosen": "x", "rejected": "y", "label": True}, layout)
    with pytest.raises(RowError, match="the row has the fields good and bad"):
        refuse_preference({"good": "x", "bad": "y"}, layout)
    with pytest.raises(RowError, match="the field ok is a verdict"):
        refuse_preference({"ok": "false"}, layout)


def test_two_answers_make_a_ranking():
    assert has_sides({"chosen": "x", "rejected": "y"}, None)
    assert not has_sides({"chosen": "x", "rejected": None}, None)
    assert has_sides({"c": "x", "r": "y"}, ("c", "r"))
    with pytest.raises(RowError, match=r"the field r is missing \(found: c\)"):
        has_sides({"c": "x"}, ("c", "r"))


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"label": True}, True),
        ({"kto_tag": False}, False),
        ({"label": "True"}, True),
        ({"label": " false"}, False),
        ({"label": "sports"}, None),
        ({"label": 1}, None),
        ({"label": None}, None),
        ({}, None),
    ],
)
def test_verdicts(row: dict[str, Any], verdict: bool | None):
    assert read_verdict(row, None) is verdict


@pytest.mark.parametrize("value", [None, "sports", 1, ""])
def test_declared_verdicts_are_true_or_false(value: Any):
    assert read_verdict({"ok": "FALSE"}, "ok") is False
    with pytest.raises(RowError, match=r"ok is .*, true or false is needed") as caught:
        read_verdict({"ok": value}, "ok")
    assert caught.value.reason == "wrong_type"


@pytest.mark.parametrize(
    ("layout", "good", "bad"),
    [
        (_FLAT, " a", "b\n"),
        (_TURNS, "a", "b"),
        (_TURNS, {"role": "assistant", "content": "a"}, [{"role": "assistant", "content": "b"}]),
        (_SHAREGPT, {"from": "gpt", "value": "a"}, [{"from": "gpt", "value": "b"}]),
        # Answers may be spelled otherwise than the prompt.
        (_SHAREGPT, {"role": "assistant", "content": "a"}, "b"),
        (_FLAT, {"from": "gpt", "value": "a"}, {"role": "assistant", "content": "b"}),
    ],
)
def test_forms_of_an_answer(layout: Any, good: Any, bad: Any):
    prompt, chosen, rejected = read_sides({"chosen": good, "rejected": bad}, layout, _PROMPT)
    assert prompt == _PROMPT
    assert (chosen, rejected) == ([Message("assistant", "a")], [Message("assistant", "b")])


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (5, "wrong_type", "chosen is the number 5, text, a message or a list"),
        ([], "no_answer", "chosen is empty"),
        ([5], "wrong_type", r"chosen\[0\] is the number 5, an object"),
        ({"role": "narrator", "content": "x"}, "unknown_role", "chosen.role is 'narrator'"),
        ([{"role": "assistant"}], "missing_field", r"chosen\[0\] has no content"),
    ],
)
def test_answers_that_cannot_be_used(value: Any, reason: str, detail: str):
    with pytest.raises(RowError, match=detail) as caught:
        read_sides({"chosen": value, "rejected": "b"}, _FLAT, _PROMPT)
    assert caught.value.reason == reason


def _split(chosen: Any, rejected: Any, **more: Any) -> list[str]:
    """Return what prompt, chosen and rejected say, as one text each."""
    row = {"chosen": chosen, "rejected": rejected, **more}
    layout = find_record_layout(row)
    prompt: list[Message] = []
    if isinstance(layout, FlatLayout):
        prompt = [Message("user", row[layout.prompt])]
    elif isinstance(layout, TurnsLayout):
        prompt = [Message(turn["role"], turn["content"]) for turn in row[layout.turns]]
    assert isinstance(layout, FlatLayout | TurnsLayout)
    sides = read_sides(row, layout, prompt)
    return [" ".join(turn.content for turn in side) for side in sides]


def test_whole_conversations_share_their_prompt():
    whole, other = _turns("ua"), [*_turns("u"), {"role": "assistant", "content": "b"}]
    assert _split(whole, other) == ["u0", "a1", "b"]
    # They part at a later answer, or at a later question: then what came before it is the prompt.
    long, longer = _turns("uaua"), [*_turns("uau"), {"role": "assistant", "content": "b"}]
    assert _split(long, longer) == ["u0 a1 u2", "a3", "b"]
    assert _split(_turns("uaua"), [*_turns("ua"), *_turns("UA")]) == ["u0", "a1 u2 a3", "a1 U0 A1"]
    # The same twice is for the step `schema` to judge.
    assert _split(whole, whole) == ["u0", "a1", "a1"]


def test_a_prompt_beside_whole_conversations():
    whole, other = _turns("sua"), [*_turns("su"), {"role": "assistant", "content": "b"}]
    expected = ["s0 u1", "a2", "b"]
    assert _split(whole, other, prompt="u1") == expected
    assert _split(whole, other, prompt=_turns("su")) == expected
    # Some data sets have the better conversation a second time.
    assert _split(whole, other, messages=whole, prompt="u1") == expected
    beside = [{"role": "system", "content": "S"}, {"role": "user", "content": "u0"}]
    assert _split(_turns("ua"), _turns("ua"), messages=beside) == ["S u0", "a1", "a1"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "more", "reason", "detail"),
    [
        (_turns("ua"), _turns("UA"), {}, "two_prompts", "begin with different turns"),
        (_turns("ua"), "b", {}, "two_prompts", "begin with different turns"),
        (_turns("ua"), _turns("ua"), {"prompt": "x"}, "two_prompts", "another prompt than the row"),
        (_turns("a"), _turns("a"), {}, "empty_prompt", "chosen begins with the answer"),
        (
            _turns("sua"),
            _turns("sua"),
            {"messages": [{"role": "system", "content": "S"}, *_turns("su")[1:]]},
            "two_prompts",
            "another prompt than the row",
        ),
    ],
)
def test_prompts_that_contradict_each_other(
    chosen: Any, rejected: Any, more: dict[str, Any], reason: str, detail: str
):
    with pytest.raises(RowError, match=detail) as caught:
        _split(chosen, rejected, **more)
    assert caught.value.reason == reason
