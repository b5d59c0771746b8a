"""Prompts as rows: the ids that a chat would ask with, and what answers are judged by."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.contracts.conversation import Corpus, Message, Origin, Record, Rejection
from luthier.contracts.question import Question
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError
from luthier.dataset.checks import check_rows
from luthier.dataset.prompts import PROMPTS, make_prompt_rows
from luthier.dataset.rendering import render_prompt
from luthier.dataset.row_table import to_dataset
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import Side

REFUSING = "{{ raise_exception('no such turn') if messages[0].content == 'bad' }}{{ 'x' * 9 }}"


def record(text: str, number: int = 0) -> Record:
    question = Question.of(text, {"question": text, "answer": "4"}, "4").to_json()
    origin = Origin("rows.jsonl", number, number + 1)
    return Record(origin, (Message("user", text),), question=question)


def make(tokenizer: Any, *records: Record, skip: bool = False, **settings: Any) -> Side:
    corpus: Any = Corpus([*records], [Rejection(Origin("f", 0), "read", "")], 9)
    return make_prompt_rows(corpus, tokenizer, DatasetSettings(**settings), skip, lambda *_: None)


@pytest.mark.parametrize("system", [None, "Be short."])
def test_a_row_is_what_a_chat_asks_with(tiny_tokenizer: Any, system: str | None):
    records = [record("What is 2 + 2?"), record("And 3 + 3?", 1)]
    side = make(tiny_tokenizer, *records, default_system=system)
    assert side.conversations == records
    for (row,), one in zip(side.rows, records, strict=True):
        assert row.input_ids.tolist() == render_prompt(one.messages, tiny_tokenizer, system)
        assert set(row.labels.tolist()) == {IGNORE_INDEX}
        assert row.question == one.question


def test_the_question_goes_to_disk_and_rows_without_a_mask_are_no_fault(tiny_tokenizer: Any):
    side = make(tiny_tokenizer, record("What is 2 + 2?"))
    table = to_dataset(side.rows[0], with_weights=False)
    assert Question.from_json(table[0]["question"]).row["reference"] == "4"
    assert check_rows(table, None, [0], may_be_empty=True) == []
    assert [found.setting for found in check_rows(table, None, [0])] == ["empty_mask"]


def test_a_prompt_over_the_limit_is_left_out_whole(tiny_tokenizer: Any):
    side = make(tiny_tokenizer, record("word " * 40), record("Hi", 1), cutoff_len=24)
    assert [found.origin.row for found in side.conversations] == [1]
    read, dropped = side.rejections
    assert read.reason == "read"
    assert dropped.reason == "too_long"
    assert "cutoff_len is 24" in dropped.detail


def test_a_prompt_that_the_template_refuses(tiny_tokenizer: Any):
    tiny_tokenizer.chat_template = REFUSING
    with pytest.raises(DataError, match=r"rows\.jsonl:1: (.|\n)*on_bad_row: skip"):
        make(tiny_tokenizer, record("bad"))
    side = make(tiny_tokenizer, record("bad"), record("good", 1), skip=True)
    assert [found.reason for found in side.rejections[1:]] == ["template_refused"]
    assert len(side.rows) == 1


def test_the_key_says_what_the_rows_are(tiny_tokenizer: Any):
    assert PROMPTS.describe(tiny_tokenizer)["rows"] == "prompts"
