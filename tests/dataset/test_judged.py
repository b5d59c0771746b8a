"""Answers that are judged: the tokens of supervised fine-tuning, the shared prompt once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.contracts.conversation import Conversation, Corpus, Message, Origin, Record, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError
from luthier.dataset import side as side_module
from luthier.dataset.judged import JudgedMaker, complete_verdicts, pair_row, with_other_answers
from luthier.dataset.rendering import Renderer
from luthier.dataset.row_table import Pair, Row
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import Side

ORIGIN = Origin("rows.jsonl", 6, 7)
TOKENIZERS = [
    ("chatml", "chatml"),
    ("llama3", "llama3"),
    ("llama2", "mistral"),
    ("llama2", "lecture"),
]


def answer(*texts: str) -> tuple[Message, ...]:
    turns: list[Message] = []
    for text in texts:
        turns += [Message("user", "And?")] * bool(turns) + [Message("assistant", text)]
    return tuple(turns)


def pair(chosen: Any, rejected: Any, prompt: str = "Hi", **fields: Any) -> Record:
    chosen, rejected = (answer(x) if isinstance(x, str) else x for x in (chosen, rejected))
    return Record(ORIGIN, (Message("user", prompt),), chosen=chosen, rejected=rejected, **fields)


def verdict(text: str, wanted: bool, prompt: str = "Hi", number: int = 0, **fields: Any) -> Record:
    messages = (Message("user", prompt), Message("assistant", text))
    return Record(Origin("rows.jsonl", number, number + 1), messages, label=wanted, **fields)


@pytest.fixture
def make(renderer):
    def run(*records: Record, using: Any = None, skip: bool = False, **changes: Any) -> Side:
        maker = JudgedMaker(
            using or renderer("chatml", "chatml"),
            DatasetSettings.model_validate({"cutoff_len": 64, **changes}),
            skip,
            lambda *_: None,
        )
        corpus: Any = Corpus([*records], [Rejection(Origin("f", 0), "read", "")], 9)
        return maker.make(corpus)

    return run


def reasons(side: Side) -> list[str]:
    return [rejection.reason for rejection in side.rejections]


def both(row: Row) -> list[tuple[list[int], list[int]]]:
    """Take a pair apart into ids and labels of prompt + chosen and prompt + rejected."""
    assert row.pair is not None
    prompt = row.pair.prompt_length
    chosen = prompt + row.pair.chosen_length
    return [
        (
            ids[:prompt].tolist() + ids[start:end].tolist(),
            labels[:prompt].tolist() + labels[start:end].tolist(),
        )
        for ids, labels in [(row.input_ids, row.labels)]
        for start, end in ((prompt, chosen), (chosen, len(ids)))
    ]


def as_sft(renderer: Renderer, prompt: Sequence[Message], side: Sequence[Message]):
    """Return what supervised fine-tuning makes of a prompt, which is not taught, and an answer."""
    told = [Message(turn.role, turn.content, 0.0) for turn in prompt]
    (row,) = renderer.render(Conversation((*told, *side), ORIGIN))
    return row.input_ids, row.labels


texts = st.text("ab \n.<>|imend琴é🎻", min_size=1, max_size=12).filter(str.strip)


@pytest.mark.parametrize(("tokenizer", "template"), TOKENIZERS)
@settings(max_examples=25, deadline=None)
@given(prompt=texts, chosen=texts, rejected=texts)
def test_both_answers_have_the_tokens_of_supervised_fine_tuning(
    renderer, tokenizer: str, template: str, prompt: str, chosen: str, rejected: str
):
    made = renderer(tokenizer, template)
    record = pair(chosen, rejected, prompt)
    maker = JudgedMaker(made, DatasetSettings(cutoff_len=512), False, lambda *_: None)
    side = maker.make(Corpus([record]))
    if reasons(side):
        assert set(reasons(side)) <= {"equal_sides", "inexact_border"}
        return
    (row,) = side.rows_of([0])
    assert row.pair is not None
    assert record.chosen is not None
    assert record.rejected is not None
    assert both(row) == [
        as_sft(made, record.messages, each) for each in (record.chosen, record.rejected)
    ]
    assert (row.labels[: row.pair.prompt_length] == IGNORE_INDEX).all()
    (first,) = both(row)[:1]
    prompt_ids = made.prompt_ids(record.messages)
    assert first[0][: len(prompt_ids)] == prompt_ids
    assert row.pair.prompt_length <= len(prompt_ids)


def test_the_prompt_is_the_generation_prompt_where_nothing_parts_them(make, renderer):
    (row,) = make(pair("Hello.", "No.")).rows_of([0])
    assert row.pair is not None
    prompt = renderer("chatml", "chatml").prompt_ids((Message("user", "Hi"),))
    assert row.input_ids[: row.pair.prompt_length].tolist() == prompt
    assert (row.loss_weights, row.origin) == (None, "rows.jsonl:7")


def test_answers_of_a_prompt_with_history_and_of_several_turns(make, renderer):
    history = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "So?"))
    record = Record(ORIGIN, history, chosen=answer("Yes.", "Two."), rejected=answer("No."))
    (row,) = make(record, cutoff_len=256).rows_of([0])
    made = renderer("chatml", "chatml")
    assert both(row) == [
        as_sft(made, history, each) for each in (answer("Yes.", "Two."), answer("No."))
    ]
    decode = made.encoder.tokenizer.decode
    taught = [decode([id_ for id_ in labels if id_ != IGNORE_INDEX]) for _, labels in both(row)]
    assert taught == ["Yes.<|im_end|>Two.<|im_end|>", "No.<|im_end|>"]
    only_last = renderer("chatml", "chatml", mask_history=True)
    (row,) = make(record, using=only_last, cutoff_len=256).rows_of([0])
    taught = [decode([id_ for id_ in labels if id_ != IGNORE_INDEX]) for _, labels in both(row)]
    assert taught == ["Two.<|im_end|>", "No.<|im_end|>"]


def test_a_template_that_looks_at_the_answer_shortens_the_shared_prompt(make, load_tiny):
    tokenizer = load_tiny("chatml")
    # Says in the prompt how long the answer will be.
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}"
        "{% if m['role'] == 'user' and not loop.last %}"
        "{{ ' long' if messages[-1]['content'] | length > 4 else ' short' }}{% endif %}"
        "{{ '\n' + m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made = Renderer(tokenizer)
    (row,) = make(pair("Hello.", "No."), using=made).rows_of([0])
    assert row.pair is not None
    shared = tokenizer.decode(row.input_ids[: row.pair.prompt_length])
    assert shared == "<|im_start|>user"
    ids = [tokenizer.decode(ids) for ids, _ in both(row)]
    assert ids[0].startswith("<|im_start|>user long\nHi<|im_end|>")
    assert ids[1].startswith("<|im_start|>user short\nHi<|im_end|>")
    assert both(row) == [
        as_sft(made, [Message("user", "Hi")], answer(x)) for x in ("Hello.", "No.")
    ]


def test_nothing_shared_leaves_two_whole_rows(renderer):
    made = renderer("llama3", "llama3")
    one, other = (
        made.render(Conversation((Message("user", "Hi"), *answer(text)), ORIGIN))[0]
        for text in ("Yes.", "No.")
    )
    ids = other.tokens.ids
    ids[0] = ids[1]
    row = pair_row(pair("Yes.", "No."), one, other)
    assert row.pair == Pair(0, len(one.input_ids))
    assert both(row) == [(one.input_ids, one.labels), (ids, other.labels)]
    assert row.labels[0] == row.labels[len(one.input_ids)] == IGNORE_INDEX


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (pair("Yes.", " Yes.\n"), "equal_sides"),
        (pair("Yes.", " "), "empty_turn"),
        (pair("Yes.", "No.", weight=0.0), "no_supervised_token"),
        (pair(answer("Yes."), (Message("assistant", "No.", 0.0),)), "no_supervised_token"),
    ],
)
def test_pairs_that_teach_nothing_leave_and_are_counted(make, record: Record, reason: str):
    side = make(record, pair("Yes.", "No."))
    assert reasons(side) == ["read", reason]
    assert (len(side.rows), side.num_read) == (1, 9)
    assert side.rejections[1].origin == ORIGIN


def test_answers_that_are_the_same_once_they_are_cut_leave(make):
    head = "the dog " * 60
    side = make(pair(head + "yes", head + "no"))
    assert reasons(side) == ["read", "equal_sides"]


def test_an_answer_that_the_template_can_only_write_in_parts_leaves(make, renderer):
    # qwen3's template rewrites earlier answers once a question follows.
    side = make(pair(answer("One.", "Two."), "No."), using=renderer("chatml", "qwen3"))
    assert reasons(side) == ["read", "answer_in_parts"]


def test_an_answer_whose_borders_grow_together_leaves(make, renderer, monkeypatch):
    made = renderer("chatml", "chatml")
    encode = made.encode
    monkeypatch.setattr(Renderer, "encode", lambda _, each: [2 * group for group in encode(each)])
    assert reasons(make(pair("Yes.", "No."))) == ["read", "answer_in_parts"]
    rejection = Rejection(ORIGIN, "inexact_border", "")
    monkeypatch.setattr(Renderer, "encode", lambda _, each: [[rejection] for _ in each])
    assert reasons(make(pair("Yes.", "No."))) == ["read", "inexact_border"]


def test_a_template_that_refuses_ends_the_run_or_is_counted(make, load_tiny):
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'bad' in m['content'] %}{{ raise_exception('no') }}"
        "{% endif %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    made = Renderer(tokenizer)
    with pytest.raises(DataError, match=r"(?s)rows\.jsonl:7.*on_bad_row: skip"):
        make(pair("Yes.", "bad"), using=made)
    side = make(pair("Yes.", "bad"), pair("Yes.", "No."), using=made, skip=True)
    assert reasons(side) == ["read", "template_refused"]
    assert len(side.rows) == 1


def test_long_rows_are_cut_or_dropped_and_counted(make):
    long = pair("Yes.", "No.", "the dog " * 100)
    side = make(long)
    (row,) = side.rows_of([0])
    assert max(len(ids) for ids, _ in both(row)) <= 64
    assert side.num_cut == 1
    assert side.num_tokens_cut > 150
    side = make(long, pair("Yes.", "No."), on_long_row="drop")
    assert reasons(side) == ["read", "too_long"]
    assert side.num_cut == 0


def test_a_prompt_that_no_cut_makes_fit_leaves(make):
    turns = (Message("user", "Hi"), Message("assistant", "Ho")) * 20
    record = Record(
        ORIGIN, (*turns, Message("user", "So?")), chosen=answer("a"), rejected=answer("b")
    )
    assert reasons(make(record)) == ["read", "too_long"]


def test_records_stay_in_order_with_their_weights_and_remarks(make, monkeypatch):
    monkeypatch.setattr(side_module, "BATCH_SIZE", 2)
    records = [pair(f"Yes {n}.", "<|im_end|>", weight=n / 2) for n in (1, 2, 3)]
    side = make(*records)
    assert side.conversations == records
    assert [row.pair.weight for (row,) in side.rows if row.pair] == [0.5, 1.0, 1.5]
    assert side.remarks == {"control_tokens": ["rows.jsonl:7"] * 3}


def test_a_margin_stays_with_its_pair(make):
    side = make(pair("Yes.", "No."), pair("Yes.", "Never.", margin=2.5))
    assert [row.pair.margin for (row,) in side.rows] == [None, 2.5]


def test_a_verdict_is_on_the_last_answer(make, renderer):
    history = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "So?"))
    record = Record(ORIGIN, (*history, Message("assistant", "Yes.")), label=False)
    (row,) = make(record).rows_of([0])
    made = renderer("chatml", "chatml")
    prompt = made.prompt_ids(history)
    assert row.pair == Pair(len(prompt), len(row.input_ids) - len(prompt), 1.0, False)
    expected = as_sft(made, history, (Message("assistant", "Yes."),))
    assert (row.input_ids.tolist(), row.labels.tolist()) == expected


def test_a_long_verdict_is_cut(make):
    (row,) = make(verdict("Yes.", True, "the dog " * 100)).rows_of([0])
    assert len(row.input_ids) <= 64


def bare(prompt: int, length: int, wanted: bool = True) -> Row:
    """Make a row of a verdict: its prompt is the number `prompt`, its answer counts from 1."""
    ids = np.asarray([prompt] * 3 + list(range(1, length + 1)), np.int32)
    labels = np.where(np.arange(len(ids)) < 3, np.int32(IGNORE_INDEX), ids)
    return Row(ids, labels, None, f"rows.jsonl:{prompt}", Pair(3, length, 1.0, wanted))


@given(
    st.lists(st.tuples(st.integers(100, 104), st.integers(1, 9)), min_size=2, max_size=12),
    st.integers(0, 3),
)
def test_each_answer_gets_one_to_another_prompt(rows: list[tuple[int, int]], seed: int):
    made = [bare(*row) for row in rows]
    if len({prompt for prompt, _ in rows}) < 2:
        with pytest.raises(DataError, match=f"all {len(rows)} rows have the same prompt"):
            with_other_answers(made, 12, seed)
        return
    found = with_other_answers(made, 9, seed)
    assert [row.origin for row in found] == [row.origin for row in made]
    for row, before in zip(found, made, strict=True):
        assert row.pair == before.pair
        num_before = len(before.input_ids)
        assert row.input_ids[:num_before].tolist() == before.input_ids.tolist()
        behind = row.input_ids[num_before:].tolist()
        assert row.labels[num_before:].tolist() == behind == list(range(1, len(behind) + 1))
        lengths = {min(6, n) for prompt, n in rows if prompt != before.input_ids[0]}
        assert len(behind) in lengths
    again = with_other_answers(made, 9, seed)
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize(("wanted", "word"), [(True, "wanted"), (False, "unwanted")])
def test_training_needs_both_verdicts(wanted: bool, word: str):
    rows = [bare(100, 2, wanted), bare(101, 2, wanted)]
    with pytest.raises(DataError, match=f"all 2 answers are {word}: KTO learns"):
        complete_verdicts({"train": rows}, 9, 0)
    mixed = [bare(100, 2, True), bare(101, 2, False)]
    made = complete_verdicts({"train": mixed, "val": rows}, 9, 0)
    assert [len(row.input_ids) for row in made["val"]] == [7, 7]
