from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from luthier.contracts.conversation import Conversation, Message, Origin, Rejection
from luthier.dataset.rendering import Rendered
from luthier.dataset.truncation import GAP, Lengths, allot, shorten

WORDS = st.lists(
    st.sampled_from(["the ", "dog", "木", "🎻", " \n", "琴师", "12345", "<|im_end|>", "quick "]),
    max_size=120,
).map("".join)


def cut(row: Rendered, made, cutoff: int, share: float = 0.5) -> Rendered | Rejection:
    assert len(row.input_ids) > cutoff
    return shorten(row, made, cutoff, share)


def num_taught(row: Rendered) -> int:
    return sum(row.supervised)


def test_long_prompts_lose_their_middle_and_the_answer_stays(renderer, talk, shown):
    made = renderer("chatml", "chatml")
    words = " ".join(str(number) for number in range(100, 400))
    (row,) = made.render(talk(("u", words), ("a", "Yes.")))
    short = cut(row, made, 64)
    assert isinstance(short, Rendered)
    assert 60 <= len(short.input_ids) <= 64
    text = shown(short)
    assert text.startswith("<|im_start|>user\n100 101 ")
    assert text.endswith(" 398 399<|im_end|>\n<|im_start|>assistant\n«Yes.<|im_end|>»\n")
    assert GAP in text
    assert not short.transcript.cut_turns


def test_long_answers_lose_their_end_and_their_end_token_is_not_taught(renderer, talk, shown):
    made = renderer("chatml", "chatml")
    words = " ".join(str(number) for number in range(100, 400))
    (row,) = made.render(talk(("u", "Count."), ("a", words)))
    short = cut(row, made, 64)
    assert isinstance(short, Rendered)
    assert 60 <= len(short.input_ids) <= 64
    head, _, tail = shown(short).partition("assistant\n")
    assert head == "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>"
    assert tail.startswith("«100 101 102")
    assert tail.endswith("»<|im_end|>\n")
    assert short.transcript.cut_turns == {1}
    assert short.transcript.conversation is row.transcript.conversation


def test_the_end_of_a_cut_answer_is_not_taught_with_the_prompt_either(renderer, talk, shown):
    made = renderer("chatml", "chatml", train_on_prompt=True)
    (row,) = made.render(talk(("u", "Count."), ("a", "the dog " * 100), ("u", "?"), ("a", "No.")))
    short = cut(row, made, 64)
    assert isinstance(short, Rendered)
    assert "»<|im_end|>\n«<|im_start|>user\n?<|im_end|>\n" in shown(short)
    assert shown(short).endswith("No.<|im_end|>\n»")


def test_both_sides_long_share_the_room(renderer, talk):
    made = renderer("chatml", "chatml")
    (row,) = made.render(talk(("u", "the dog " * 200), ("a", "the fox " * 200)))
    for share in (0.2, 0.5, 0.9):
        short = cut(row, made, 128, share)
        assert isinstance(short, Rendered)
        empty = made.template.render([Message("user", ""), Message("assistant", "")])
        room = 128 - len(made.encoder.encode(empty).ids)
        assert abs(num_taught(short) - share * room) <= 6


def test_thoughts_are_not_cut_into_answers_without_thought(renderer, talk):
    # Cut before </think>, Qwen3's template would write the thought as an answer.
    made = renderer("chatml", "qwen3")
    answer = "<think>\n" + "the dog " * 200 + "\n</think>\n\nYes."
    (row,) = made.render(talk(("u", "Hi"), ("a", answer)))
    short = cut(row, made, 64)
    assert isinstance(short, Rejection)
    assert short.reason == "too_long"
    assert "the template rewrites it" in short.detail


def test_a_row_of_headers_alone_is_given_up(renderer, talk):
    made = renderer("chatml", "chatml")
    (row,) = made.render(talk(*[("u", "a"), ("a", "b")] * 20))
    short = cut(row, made, 64)
    assert isinstance(short, Rejection)
    assert (short.reason, str(short.origin)) == ("too_long", "rows.jsonl:7")
    assert f"{len(row.input_ids)} tokens, cutoff_len is 64" in short.detail
    assert len(short.content) <= 2100


def test_rejected_content_is_kept_short(renderer, talk):
    made = renderer("chatml", "chatml")
    (row,) = made.render(talk(("u", "a" * 9000), ("a", "b")))
    short = cut(row, made, 8)
    assert isinstance(short, Rejection)
    assert len(short.content) < 2100


def test_history_that_is_not_taught_is_cut_like_a_prompt(renderer, talk, shown):
    made = renderer("chatml", "chatml", mask_history=True)
    (row,) = made.render(
        talk(("u", "a"), ("a", "100 " + "the dog " * 100 + "999"), ("u", "b"), ("a", "Yes."))
    )
    short = cut(row, made, 64)
    assert isinstance(short, Rendered)
    assert "999<|im_end|>" in shown(short)
    assert not short.transcript.cut_turns


def test_the_longest_are_cut_first():
    lengths = Lengths(prompts={0: 5, 2: 100, 4: 40}, answers={1: 10, 3: 90})
    allotted = allot(lengths, 100, 0.5)
    assert allotted == {1: 10, 3: 40, 0: 5, 4: 22, 2: 23}


def test_room_that_one_side_does_not_need_goes_to_the_other():
    lengths = Lengths(prompts={0: 300}, answers={1: 10})
    assert allot(lengths, 100, 0.5) == {0: 90, 1: 10}
    lengths = Lengths(prompts={0: 10}, answers={1: 300})
    assert allot(lengths, 100, 0.5) == {0: 10, 1: 90}
    lengths = Lengths(prompts={0: 300}, answers={1: 300})
    assert allot(lengths, 100, 0.0) == {0: 100, 1: 0}


@given(
    prompts=st.lists(st.integers(0, 200), max_size=4),
    answers=st.lists(st.integers(0, 200), min_size=1, max_size=4),
    room=st.integers(1, 300),
    share=st.floats(0, 1),
)
def test_allotments_keep_the_room_and_the_share(prompts, answers, room, share):
    lengths = Lengths(
        {2 * i: n for i, n in enumerate(prompts)}, {2 * i + 1: n for i, n in enumerate(answers)}
    )
    allotted = allot(lengths, room, share)
    needs = {**lengths.prompts, **lengths.answers}
    assert allotted.keys() == needs.keys()
    assert all(0 <= allotted[i] <= needs[i] for i in needs)
    assert sum(allotted.values()) == min(room, sum(needs.values()))
    for_answers = sum(allotted[i] for i in lengths.answers)
    assert for_answers >= min(sum(answers), math.floor(share * room))


@pytest.mark.parametrize("tokenizer", ["chatml", "llama3", "llama2"])
@given(
    turns=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3),
    cutoff=st.integers(8, 120),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_cut_rows_fit_and_keep_their_structure(tokenizer, renderer, turns, cutoff, share):
    made = renderer(tokenizer, "chatml")
    messages = [
        Message(role, content)
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    for row in made.render(Conversation(tuple(messages), Origin("random", 0))):
        if len(row.input_ids) <= cutoff:
            continue
        short = shorten(row, made, cutoff, share)
        if isinstance(short, Rejection):
            num_headers = len(
                made.encoder.encode(
                    made.template.render([Message(m.role, "") for m in row.transcript.messages])
                ).ids
            )
            assert num_headers + 4 * len(row.transcript.messages) >= cutoff
            continue
        assert len(short.input_ids) <= cutoff
        text = short.transcript.text
        assert [m.role for m in short.transcript.messages] == [
            m.role for m in row.transcript.messages
        ]
        assert text.count("<|im_start|>assistant\n") == text.count("<|im_start|>user\n")
        for answer, start in zip(short.transcript.answers, short.answer_starts, strict=True):
            assert text[: answer.start].endswith("<|im_start|>assistant\n")
            before = short.transcript.messages[: answer.turn]
            assert short.input_ids[:start] == made.prompt_ids(before)
            old, new = row.transcript.messages[answer.turn], short.transcript.messages[answer.turn]
            assert old.content.startswith(new.content)
            stop = start + sum(short.supervised[start : short_end(short, answer.end)])
            is_end = (
                stop > start and short.input_ids[stop - 1] == made.encoder.tokenizer.eos_token_id
            )
            if answer.turn not in short.transcript.cut_turns:
                assert new == old
                assert is_end
            else:
                said = text[answer.start : short.char_ends[stop - 1]] if stop > start else ""
                assert new.content.startswith(said), "no token that the template wrote is taught"


def short_end(row: Rendered, place: int) -> int:
    return sum(1 for end in row.char_ends if end <= place)


@given(prompt=WORDS, answer=WORDS, cutoff=st.integers(40, 120))
@hypothesis_settings(max_examples=60, deadline=None)
def test_at_least_a_share_of_the_answer_survives(renderer, prompt, answer, cutoff):
    made = renderer("chatml", "chatml")
    answer = answer.replace("<|im_end|>", "")
    messages = (Message("user", prompt), Message("assistant", answer))
    (row,) = made.render(Conversation(messages, Origin("random", 0)))
    if len(row.input_ids) <= cutoff:
        return
    short = shorten(row, made, cutoff, 0.5)
    assert isinstance(short, Rendered)
    empty = made.template.render([Message("user", ""), Message("assistant", "")])
    room = cutoff - len(made.encoder.encode(empty).ids)
    need = len(made.encoder.encode(answer).ids)
    # A character of several tokens is kept or left whole, so a few tokens more or less.
    assert num_taught(short) >= min(need, room // 2) - 6
