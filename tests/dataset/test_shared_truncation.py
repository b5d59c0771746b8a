"""Answers to one prompt, too long with it: the prompt is cut alike, the answers last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.contracts.conversation import Conversation, Message, Origin, Rejection
from luthier.dataset.rendering import Rendered
from luthier.dataset.shared_truncation import shorten_together
from luthier.dataset.truncation import GAP

NUMBERS = " ".join(str(number) for number in range(100, 400))
WORDS = st.lists(
    st.sampled_from(["the ", "dog", "木", "🎻", " \n", "琴师", "12345", "quick "]), max_size=80
).map("".join)


def rendered(made: Any, prompt: str, *answers: str) -> list[Rendered]:
    rows: list[Rendered] = []
    for answer in answers:
        messages = (Message("user", prompt), Message("assistant", answer))
        rows += made.render(Conversation(messages, Origin("rows.jsonl", 6, 7)))
    return rows


def texts(rows: Sequence[Rendered] | Rejection) -> list[tuple[str, str]]:
    """Return prompt and answer of each row."""
    assert not isinstance(rows, Rejection)
    return [(m[0].content, m[1].content) for m in (row.transcript.messages for row in rows)]


def test_the_prompt_is_cut_alike_and_the_answers_stay_whole(renderer):
    made = renderer("chatml", "chatml")
    rows = rendered(made, NUMBERS, "Yes.", NUMBERS[:60])
    short = shorten_together(rows, made, 64, 0.5)
    (one, first), (other, second) = texts(short)
    assert one == other
    assert one.startswith("100 ")
    assert one.endswith("399")
    assert GAP in one
    assert (first, second) == ("Yes.", NUMBERS[:60])
    assert not isinstance(short, Rejection)
    assert [row.transcript.cut_turns for row in short] == [frozenset()] * 2
    lengths = [len(row.input_ids) for row in short]
    assert max(lengths) <= 64 < max(lengths) + 5
    start = short[0].answer_starts[0]
    assert short[0].input_ids[:start] == short[1].input_ids[:start]


def test_answers_that_leave_the_prompt_no_tenth_are_cut_too(renderer):
    made = renderer("chatml", "chatml")
    short = shorten_together(rendered(made, NUMBERS, "Yes.", NUMBERS), made, 64, 0.5)
    (one, first), (other, second) = texts(short)
    assert one == other != ""
    assert first == "Yes."
    assert NUMBERS.startswith(second)
    assert len(second) < len(NUMBERS)
    assert not isinstance(short, Rejection)
    assert short[1].transcript.cut_turns == {1}


def test_a_long_answer_takes_nothing_from_a_short_prompt_or_the_other_answer(renderer):
    made = renderer("chatml", "chatml")
    short = shorten_together(rendered(made, "Hi", "Yes.", NUMBERS), made, 64, 0.5)
    (one, first), (other, second) = texts(short)
    assert (one, other, first) == ("Hi", "Hi", "Yes.")
    assert NUMBERS.startswith(second)


def test_a_larger_share_is_the_users(renderer):
    made = renderer("chatml", "chatml")
    rows = rendered(made, "the dog " * 9, "Yes.", NUMBERS[:100])
    (usual, _), _ = texts(shorten_together(rows, made, 64, 0.0))
    (less, _), _ = texts(shorten_together(rows, made, 64, 0.98))
    assert 0 < len(less) < len(usual)


@pytest.mark.parametrize(
    ("cutoff", "why"),
    [(10, "are headers or can't be cut"), (14, "its answers leave no room for the prompt")],
)
def test_what_no_cut_makes_fit_is_given_up(renderer, cutoff: int, why: str):
    made = renderer("chatml", "chatml")
    found = shorten_together(rendered(made, "Hi", "Yes.", "No."), made, cutoff, 0.5)
    assert isinstance(found, Rejection)
    assert found.reason == "too_long"
    assert found.detail.endswith(why)


def test_an_answer_that_the_template_rewrites_is_given_up(renderer, monkeypatch):
    made = renderer("chatml", "chatml")
    rows = rendered(made, NUMBERS, "Yes.", "No.")
    encode = made.encode
    monkeypatch.setattr(made, "encode", lambda each: [2 * group for group in encode(each)])
    found = shorten_together(rows, made, 64, 0.5)
    assert isinstance(found, Rejection)
    assert found.detail.endswith("its answer can't be cut: the template rewrites it")


@settings(max_examples=40, deadline=None)
@given(prompt=WORDS, chosen=WORDS, rejected=WORDS, cutoff=st.integers(24, 80))
def test_any_rows_fit_with_one_prompt(
    renderer, prompt: str, chosen: str, rejected: str, cutoff: int
):
    made = renderer("chatml", "chatml")
    rows = rendered(made, f"q{prompt}", f"a{chosen}", f"b{rejected}")
    if max(len(row.input_ids) for row in rows) <= cutoff:
        return
    short = shorten_together(rows, made, cutoff, 0.5)
    if isinstance(short, Rejection):
        assert short.reason == "too_long"
        return
    assert all(len(row.input_ids) <= cutoff for row in short)
    prompts = {text for text, _ in texts(short)}
    assert len(prompts) == 1
    for (_, answer), whole in zip(texts(short), (f"a{chosen}", f"b{rejected}"), strict=True):
        assert whole.startswith(answer)
