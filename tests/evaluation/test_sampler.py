from __future__ import annotations

from typing import Any

import pytest
import torch

from luthier.contracts.training import StopAskedError
from luthier.engine.precision import Precision
from luthier.evaluation.generation import generate_answers
from luthier.evaluation.sampler import FixedPrompts
from luthier.evaluation.settings import GenerationSettings

IDS = [[10, 11, 12], [40, 41]]


@pytest.fixture
def model(tiny_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama(initializer_range=0.4))


def ask(tokenizer, **changes):
    settings: dict[str, Any] = {
        "prompts": ("one", "two"),
        "prompt_ids": IDS,
        "tokenizer": tokenizer,
        "stop_token_ids": (),
        "max_new_tokens": 5,
        "precision": Precision(torch.float32, "cpu"),
    }
    return FixedPrompts(**(settings | changes))


def test_each_prompt_is_answered_by_its_likeliest_tokens(model, tiny_tokenizer):
    samples = ask(tiny_tokenizer)(model)
    settings = GenerationSettings(max_new_tokens=5)
    answers = generate_answers(model, tiny_tokenizer, IDS, settings, ())
    assert [(s.prompt, s.answer) for s in samples] == [
        ("one", answers[0].text),
        ("two", answers[1].text),
    ]
    assert {s.finish_reason for s in samples} == {"length"}
    assert ask(tiny_tokenizer)(model) == samples, "the same model says the same again"


def test_it_is_given_up_when_the_run_is_to_stop(model, tiny_tokenizer):
    with pytest.raises(StopAskedError):
        ask(tiny_tokenizer, is_stopped=lambda: True)(model)
