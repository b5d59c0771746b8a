"""Prompts that a model is to answer: each format, with an answer or without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Message, Origin, Record
from luthier.contracts.question import Question
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import RowError
from luthier.corpus.layouts import TextLayout
from luthier.corpus.load import load_questions
from luthier.corpus.prompt_rows import question_from_row
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(tmp_path: Path, *rows: dict[str, Any], **settings: Any) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load_questions([Source("rows.jsonl", path)], CorpusSettings(**settings))


def question(record: Record) -> Question:
    assert record.question is not None
    return Question.from_json(record.question)


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "q", "answer": "a"}, "a"),
        ({"prompt": "q"}, None),
        ({"prompt": "q", "completion": None}, None),
        ({"instruction": "q", "input": "", "output": "a"}, "a"),
        ({"messages": [Q]}, None),
        ({"messages": [Q, A]}, "a"),
        ({"conversations": [{"from": "human", "value": "q"}]}, None),
        ({"prompt": [Q], "answer": [A]}, "a"),
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, None),
    ],
)
def test_each_format_with_an_answer_or_without(
    tmp_path: Path, row: dict[str, Any], reference: str | None
):
    corpus = read(tmp_path, {**row, "level": 3})
    (record,) = corpus.conversations
    assert record.messages == (Message("user", "q"),)
    found = question(record)
    assert found.prompt == "q"
    assert found.row == {**row, "level": 3, "reference": reference}
    assert not corpus.unused, "reward functions see every field"


def test_a_row_of_a_prepared_corpus(tmp_path: Path):
    row = {"id": "f#2", "origin": "f:3", "messages": [Q, A]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    source = Source("rows.jsonl", path, format="record")
    (record,) = load_questions([source], CorpusSettings()).conversations
    assert (record.origin, record.messages) == (Origin("f", 2, 3), (Message("user", "q"),))
    assert question(record).row["reference"] == "a"


def test_rows_of_one_prompt_are_one_to_a_split(tmp_path: Path):
    one, other = read(
        tmp_path, {"question": "q", "answer": "1"}, {"question": "q", "answer": "2"}
    ).conversations
    assert one.key() == other.key()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a document"}, "no format that is known"),
        ({"level": 3}, "no field holds a prompt"),
        ({"prompt": " "}, "is blank"),
        ({"messages": [A]}, "no user message|from assistant"),
        ({"prompt": "q", "tools": "[]x"}, "tools"),
    ],
)
def test_rows_that_hold_no_prompt(tmp_path: Path, row: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, row)


def test_a_document_is_no_prompt():
    with pytest.raises(RowError, match="no format that is known"):
        question_from_row({"text": "t"}, Origin("f", 0), layout=TextLayout())
