"""The records that the corpus hands on."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from luthier.contracts.conversation import (
    ROLES,
    Conversation,
    Corpus,
    Message,
    Origin,
    Record,
    Rejection,
)


def conversation(*messages: tuple[Any, str], **fields: Any) -> Conversation:
    turns = tuple(Message(role, content) for role, content in messages)
    return Conversation(turns, Origin("a.json", 0), **fields)


def test_an_origin_reads_as_editors_jump_to_it() -> None:
    assert str(Origin("data/a.jsonl", row=6, line=7)) == "data/a.jsonl:7"
    assert str(Origin("data/a.parquet", row=6)) == "data/a.parquet row 6"


def test_the_roles() -> None:
    assert ROLES == ("system", "user", "assistant", "tool")


def test_records_are_frozen() -> None:
    message: Any = Message("user", "hello")
    with pytest.raises(FrozenInstanceError):
        message.content = "bye"


def test_the_key_is_the_turns() -> None:
    one = conversation(("user", "a"), ("assistant", "b"))
    assert one.key() == conversation(("user", "a"), ("assistant", "b"), task="x", weight=2.0).key()
    others = [
        conversation(("user", "a"), ("assistant", "c")),
        conversation(("system", "a"), ("assistant", "b")),
        conversation(("user", "aassistantb")),
        conversation(("user", "a\nassistant b")),
        conversation(("assistant", "b"), ("user", "a")),
    ]
    assert len({one.key(), *(other.key() for other in others)}) == 6


def test_a_corpus_counts_rejections_most_frequent_first() -> None:
    corpus = Corpus()
    for row, reason in enumerate(["too_short", "empty", "too_short"]):
        corpus.rejections.append(Rejection(Origin("a", row), reason, "detail"))
    assert list(corpus.num_dropped().items()) == [("too_short", 2), ("empty", 1)]
    corpus.formats["alpaca"] += 2
    assert Corpus() == Corpus(), "no two corpora share a list"
    assert Corpus().num_dropped() == {}


def test_a_conversation_as_a_record_has_the_same_key() -> None:
    found = conversation(("user", "q"), ("assistant", "a"))
    assert Record(Origin("b.json", 7), found.messages).key() == found.key()


def test_what_makes_a_record_another_one() -> None:
    turns = (Message("user", "q"), Message("assistant", "a"))
    origin = Origin("a.json", 0)
    changes: list[dict[str, Any]] = [
        *({}, {"text": "a"}, {"label": True}, {"label": False}, {"tools": "[]"}),
        *({"chosen": turns}, {"rejected": turns}, {"chosen": turns, "rejected": turns}),
    ]
    assert len({Record(origin, turns, **change).key() for change in changes}) == len(changes)
    calling = (Message("user", "q"), Message("assistant", "a", 1.0, "[]"))
    assert Record(origin, calling).key() != Record(origin, turns).key()
