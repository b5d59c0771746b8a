from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.contracts.question import Question
from luthier.contracts.training import StopAskedError
from luthier.engine.precision import Precision
from luthier.evaluation.generation import generate_answers
from luthier.evaluation.settings import GenerationSettings
from luthier.rollouts.evaluation import RewardEvaluation
from luthier.rollouts.rewards import RewardFunction

PROMPTS = [[20], [21, 30], [22, 30, 40], [23]]


def number_of_chars(prompt: str, answer: str, row: Any) -> float:
    return len(answer) + row["bonus"]


@pytest.fixture
def model(tiny_llama: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_llama(initializer_range=0.2)).train()


def evaluation(tokenizer: Any, **fields: Any) -> RewardEvaluation:
    rows = [
        {
            "input_ids": ids,
            "origin": "f",
            "question": Question.of("q", {"bonus": number}, None).to_json(),
        }
        for number, ids in enumerate(PROMPTS)
    ]
    rewards = [
        RewardFunction("chars", 2.0, number_of_chars),
        RewardFunction("one", -1.0, lambda *_: 1.0),
    ]
    return RewardEvaluation(
        tokenizer, (2,), rows, rewards, 5, 3, Precision(torch.float32, "cpu"), **fields
    )


def test_means_over_the_likeliest_answers(model: Any, tiny_tokenizer: Any):
    found = evaluation(tiny_tokenizer)(model)
    assert model.training
    answers = generate_answers(
        model, tiny_tokenizer, PROMPTS, GenerationSettings(max_new_tokens=5), (2,)
    )
    mean = sum(len(answer.text) + number for number, answer in enumerate(answers)) / 4
    assert found["eval_rewards/chars/mean"] == pytest.approx(mean)
    assert found["eval_rewards/one/mean"] == 1.0
    assert found["eval_reward"] == pytest.approx(2 * mean - 1)
    assert found["eval_loss"] == -found["eval_reward"]
    cut = sum(answer.finish_reason == "length" for answer in answers)
    assert found["eval_completions/clipped_ratio"] == cut / 4


def test_it_can_be_given_up_between_batches(model: Any, tiny_tokenizer: Any):
    asked: list[bool] = []

    def is_stopped() -> bool:
        asked.append(True)
        return len(asked) == 2

    with pytest.raises(StopAskedError):
        evaluation(tiny_tokenizer, is_stopped=is_stopped)(model)
    assert len(asked) == 2
