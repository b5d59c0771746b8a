from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest

from luthier.core.errors import DataError
from luthier.recipes.answering import find_model
from luthier.recipes.export_probe import NUM_TOKENS, ROW_TOKENS, make_probe
from luthier.recipes.export_source import open_exported


@pytest.fixture
def ask(recorder):
    def make(path, data=None):
        model = open_exported(find_model(str(path)))
        trained = model.load_trained()
        stops = model.stop_token_ids(trained)
        return make_probe(model, trained, stops, data, recorder), model, trained

    return make


def text_of(probe, model):
    return model.tokenizer.decode([id_ for row in probe.rows for id_ in row])


def test_a_run_is_asked_its_validation_rows(small_run, ask, recorder):
    run = small_run.train(max_steps=1, default_system="Be brief.").folder
    probe, model, trained = ask(run)
    assert probe.origin.endswith("val.jsonl")
    assert recorder.said[-1] == f"The trained model is asked: {probe.origin}"
    assert "Say 0." in model.tokenizer.decode(probe.rows[0])
    assert hasattr(trained, "peft_config"), "merged before it was asked"
    assert 200 < sum(map(len, probe.rows)) <= NUM_TOKENS
    assert max(map(len, probe.rows)) <= ROW_TOKENS
    assert probe.chats[0].messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say 0."},
    )
    for chat in probe.chats:
        told = model.tokenizer.apply_chat_template(
            list(chat.messages), add_generation_prompt=True, return_dict=True
        )
        assert tuple(told["input_ids"]) == chat.ids
    assert probe.prompts == tuple(chat.ids for chat in probe.chats[:3])
    assert len(probe.answers) == len(probe.stopped) == 3
    assert np.isfinite(probe.perplexity)


def test_a_file_of_rows_comes_before_a_run_s(small_run, ask, write_file):
    run = small_run.train(max_steps=1).folder
    rows = write_file("own.jsonl", json.dumps({"question": "Why?", "answer": "So."}))
    probe, model, _ = ask(run, str(rows))
    assert probe.origin == str(rows)
    assert "Why?" in model.tokenizer.decode(probe.rows[0])


@pytest.mark.parametrize("is_run", [False, True])
def test_without_rows_there_are_built_in_chats_and_the_reason(small_run, ask, is_run):
    folder = small_run.train(max_steps=1, val_file=None).folder if is_run else small_run.model
    probe, model, _ = ask(folder)
    why = "the run has no validation rows" if is_run else "the model is of no run"
    assert probe.origin == f"built-in chats ({why})"
    assert "杭州" in text_of(probe, model)
    assert any(len(chat.messages) == 4 for chat in probe.chats)


def test_a_template_that_writes_the_date_is_marked(tiny_llama, load_tiny, ask):
    assert ask(tiny_llama())[0].day is None
    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    assert ask(tiny_llama("dated", tokenizer=tokenizer))[0].day == date.today().isoformat()


def test_chats_that_the_template_refuses_are_left_out(tiny_llama, load_tiny, ask):
    tokenizer = load_tiny("chatml")
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    probe, model, _ = ask(tiny_llama(tokenizer=tokenizer))
    assert len(probe.chats) == 3
    assert "12 * 12" not in text_of(probe, model)


def test_a_model_without_a_template_is_asked_texts(tiny_llama, load_tiny, ask, write_file):
    text = write_file("texts.jsonl", json.dumps({"text": "A story about a violin. " * 40}))
    probe, model, _ = ask(tiny_llama(tokenizer=load_tiny("llama2")), str(text))
    assert "violin" in model.tokenizer.decode(probe.rows[0])
    assert len(probe.rows[0]) == ROW_TOKENS
    assert all(not chat.messages for chat in probe.chats)
    assert probe.prompts == ()


def test_a_template_that_refuses_everything_leaves_nothing_to_ask(tiny_llama, ask):
    folder = tiny_llama(max_position_embeddings=1)
    with pytest.raises(DataError, match="no row suits the model"):
        ask(folder)
