from __future__ import annotations

import json

import pytest

from luthier.contracts.conversation import Conversation, Message, Origin, Record
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import ModelError
from luthier.recipes.answering import find_model
from luthier.recipes.evaluated_model import load_evaluated
from luthier.recipes.evaluation_rows import EvaluationRow
from luthier.recipes.measured_rows import rows_for_answers, rows_for_loss

TURNS = (
    Message("user", "Name a colour."),
    Message("assistant", "Red 🎻."),
    Message("user", "Another."),
    Message("assistant", "Blue, 蓝色。"),
)


@pytest.fixture
def load(tiny_llama, load_tiny):
    """Load a tiny model with a context of so many tokens."""

    def make(context=512, *, template=True):
        tokenizer = load_tiny("chatml")
        if not template:
            tokenizer.chat_template = None
        folder = tiny_llama(tokenizer=tokenizer, max_position_embeddings=context)
        (model,) = load_evaluated(find_model(str(folder)), "tiny", None)
        return model

    return make


def chat(*turns, line=1):
    return EvaluationRow(Conversation(turns, Origin("rows.jsonl", line - 1, line)), {})


def text(words, line=1, weight=1.0):
    record = Record(Origin("rows.jsonl", line - 1, line), text=words, weight=weight)
    return EvaluationRow(record, {"text": words})


def test_all_answers_carry_loss_and_their_bytes_are_those_of_their_words(load):
    model = load()
    seen = rows_for_loss(model, [chat(*TURNS)])
    (row,) = seen.loss_rows
    taught = [label for label in row.labels if label != IGNORE_INDEX]
    words = TURNS[1].content + TURNS[3].content
    assert model.tokenizer.decode(taught).replace("<|im_end|>", "") == words
    assert row.num_tokens == len(taught)
    assert row.num_bytes == len(words.encode())
    assert not seen.left_out


def test_a_text_longer_than_the_window_goes_on_in_the_next(load, monkeypatch):
    monkeypatch.setattr("luthier.recipes.measured_rows.WINDOW", 16)
    words = "The quick brown fox, 琴师用云杉和枫木做琴. " * 4
    model = load()
    seen = rows_for_loss(model, [chat(*TURNS[:2]), text(words, line=2)])
    of_text = [row for row in seen.loss_rows if row.number == 1]
    assert len(of_text) > 2
    assert max(len(row.input_ids) for row in of_text) == 16
    ids = model.tokenizer(words, add_special_tokens=False)["input_ids"]
    # All but the first token, which nothing predicts, and the end of the text.
    assert sum(row.num_tokens for row in of_text) == len(ids)
    first = model.tokenizer.decode(ids[:1])
    assert sum(row.num_bytes for row in of_text) == len(words.removeprefix(first).encode())
    assert [row.number for row in seen.loss_rows if row.number == 0] == [0]


def test_a_window_is_no_longer_than_the_context(load):
    seen = rows_for_loss(load(context=12), [text("The quick brown fox. " * 9)])
    assert max(len(row.input_ids) for row in seen.loss_rows) == 12


def test_what_a_model_can_not_take_is_left_out_with_the_reason(load):
    model = load(context=40)
    unheard = chat(Message("user", "Hi."), Message("assistant", "No.", weight=0.0), line=2)
    rows = [chat(Message("user", "long " * 50), TURNS[1]), unheard, chat(*TURNS[:2], line=3)]
    rows.append(text("", line=4))
    rows.append(text("Fine.", line=5, weight=0.0))
    seen = rows_for_loss(model, rows)
    assert [row.number for row in seen.loss_rows] == [2]
    assert json.dumps(seen.left_out[0]).endswith("the model's context is 40\"")
    assert seen.left_out[1] == "its answers have weight 0"
    assert "no token stands for its text" in seen.left_out[3]
    assert "weight is 0" in seen.left_out[4]


def test_the_prompt_is_all_before_the_last_answer(load):
    model = load()
    seen = rows_for_answers(model, [chat(*TURNS)])
    assert model.renderer is not None
    assert seen.prompts == {0: model.renderer.prompt_ids(TURNS[:3])}


def test_prompts_beyond_the_context_are_left_out(load):
    rows = [chat(Message("user", "long " * 50), TURNS[1]), chat(*TURNS[:2], line=2)]
    seen = rows_for_answers(load(context=40), rows)
    assert list(seen.prompts) == [1]
    assert seen.left_out[0].startswith("its prompt has ")


def test_what_a_template_refuses_is_left_out(load, monkeypatch):
    model = load()
    template = model.tokenizer.chat_template
    model.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + template
    )
    from dataclasses import replace

    from luthier.dataset.rendering import Renderer

    strict = replace(model, renderer=Renderer(model.tokenizer))
    rows = [chat(Message("system", "Be brief."), *TURNS[:2])]
    assert "no system" in rows_for_loss(strict, rows).left_out[0]
    assert "no system" in rows_for_answers(strict, rows).left_out[0]


def test_a_model_without_chat_template_takes_texts_alone(load):
    model = load(template=False)
    assert rows_for_loss(model, [text("A story.")]).loss_rows
    for see in (rows_for_loss, rows_for_answers):
        with pytest.raises(ModelError, match=r"no chat template(.|\n)*plain text"):
            see(model, [chat(*TURNS)])
