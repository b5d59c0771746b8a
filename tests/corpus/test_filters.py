from __future__ import annotations

import pytest

from luthier.contracts.conversation import Conversation, Message, Origin, Record
from luthier.corpus.bad_rows import MENDS
from luthier.corpus.filters import FILTERS, empty_text, short_answer, why_dropped
from luthier.corpus.settings import CorpusSettings


def _chat(*answers: str) -> Conversation:
    turns = [
        turn for text in answers for turn in (Message("user", "q"), Message("assistant", text))
    ]
    return Conversation(tuple(turns), Origin("a.json", 0))


@pytest.mark.parametrize(
    ("answer", "at_least", "is_kept"),
    [
        ("12345", 6, False),
        ("123456", 6, True),
        (" 12345 \n", 6, False),
        ("一二三四五六", 6, True),
        ("", 1, False),
        ("", 0, True),
    ],
)
def test_short_answer(answer: str, at_least: int, is_kept: bool):
    dropped = short_answer(_chat(answer), CorpusSettings(min_answer_chars=at_least))
    assert (dropped is None) == is_kept


def test_last_answer_counts():
    settings = CorpusSettings(min_answer_chars=3)
    assert why_dropped(_chat("a", "long enough"), settings) is None
    assert why_dropped(_chat("long enough", "a"), settings) == (
        "short_answer",
        "the answer has 1 characters, min_answer_chars is 3",
    )


def test_lecture_filter_is_six():
    for answer in ("12345", "123456", " 12345 ", "1234567"):
        keeps = len(answer.strip()) > 5  # the lecture's keep_example
        is_kept = why_dropped(_chat(answer), CorpusSettings(min_answer_chars=6)) is None
        assert is_kept == keeps


def test_of_ranked_answers_the_better_one_counts():
    asked, good, bad = Message("user", "q"), Message("assistant", "good"), Message("assistant", "")
    settings = CorpusSettings(min_answer_chars=2)
    row = Record(Origin("a", 0), (asked,), chosen=(good,), rejected=(bad,))
    assert why_dropped(row, settings) is None
    row = Record(Origin("a", 0), (asked,), chosen=(bad,), rejected=(good,))
    assert why_dropped(row, settings) == (
        "short_answer",
        "the answer has 0 characters, min_answer_chars is 2",
    )


def test_calls_of_tools_are_an_answer():
    turns = (Message("user", "q"), Message("assistant", "", 1.0, "[]"))
    assert why_dropped(Record(Origin("a", 0), turns), CorpusSettings()) is None


def test_blank_texts():
    settings = CorpusSettings(min_answer_chars=6)
    assert why_dropped(Record(Origin("a", 0), text="a"), settings) is None
    blank = Record(Origin("a", 0), text=" \n")
    assert why_dropped(blank, settings) == ("empty_text", "the text is blank")
    assert empty_text(_chat("a"), settings) is None


def test_each_filter_has_a_mend():
    assert FILTERS.keys() <= MENDS.keys()
