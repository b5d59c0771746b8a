from __future__ import annotations

import pytest
import torch

from luthier.contracts.conversation import Message
from luthier.core.errors import DataError
from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.answering import load_answering_model
from luthier.recipes.chat_session import ChatSession

SETTINGS = GenerationSettings(max_new_tokens=8)


@pytest.fixture
def answering(tiny_llama):
    folder = str(tiny_llama(initializer_range=0.4))
    return load_answering_model(folder, torch.device("cpu"), "float32")


@pytest.fixture
def session(answering):
    return ChatSession(answering, SETTINGS)


def silent(_piece: str) -> None:
    """Take no notice."""


def test_turns_are_kept_and_change_the_answer(session, answering):
    first = session.ask("Name a colour.", silent)
    second = session.ask("Another?", silent)
    assert [turn.role for turn in session.turns] == ["user", "assistant"] * 2
    assert [turn.content for turn in session.turns][1::2] == [first.text, second.text]
    assert ChatSession(answering, SETTINGS).ask("Another?", silent) != second


def test_forgetting_begins_anew(session):
    first = session.ask("Name a colour.", silent)
    session.forget()
    assert session.turns == []
    assert session.ask("Name a colour.", silent) == first


def test_the_system_prompt_stands_before_the_turns(session):
    plain = session.ask("Name a colour.", silent)
    session.system = "Answer in Chinese."
    session.forget()
    assert session.ask("Name a colour.", silent) != plain
    assert session.turns[0] == Message("user", "Name a colour.")


def test_another_try_replaces_the_answer(session):
    first = session.ask("Name a colour.", silent)
    again = session.retry(silent)
    assert again is not None
    assert again.text != first.text
    assert session.turns == [Message("user", "Name a colour."), Message("assistant", again.text)]


def test_there_is_nothing_to_try_again_at_first(session):
    assert session.retry(silent) is None


def test_an_answer_stopped_halfway_is_kept_and_one_never_begun_is_not(session, monkeypatch):
    def interrupt(_piece: str) -> None:
        raise KeyboardInterrupt

    answer = session.ask("Name a colour.", interrupt)
    assert answer.finish_reason == "interrupted"
    assert session.turns[-1] == Message("assistant", answer.text)
    before = list(session.turns)

    def never_begin(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(session._answering.model), "forward", never_begin)
    assert session.ask("Another?", silent).text == ""
    assert session.turns == before


def test_a_conversation_that_fills_the_context_leaves_the_history(session):
    session.ask("Name a colour.", silent)
    before = list(session.turns)
    with pytest.raises(DataError, match="the model's context is 512"):
        session.ask("word " * 600, silent)
    assert session.turns == before
