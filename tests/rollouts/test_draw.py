"""Answers of a small model: drawn by a seed, judged by their group, with what is asked later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from luthier.batches.collate import CausalLMCollator
from luthier.contracts.question import Question
from luthier.core.errors import RunError
from luthier.engine.precision import Precision
from luthier.evaluation.generation import generate_tokens
from luthier.evaluation.settings import GenerationSettings
from luthier.objectives.grpo import AnswerPolicy
from luthier.rollouts.draw import Drawer
from luthier.rollouts.rewards import RewardFunction
from luthier.rollouts.settings import RolloutSettings

CPU = Precision(torch.float32, "cpu")
STOPS = (2,)


def length(prompt: str, answer: str, row: Any) -> float:
    return len(answer) + row["bonus"]


@pytest.fixture
def model(tiny_llama: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_llama(initializer_range=0.2)).train()


@pytest.fixture
def drawer(model: Any, tiny_tokenizer: Any) -> Any:
    rows = [
        {
            "input_ids": [20 + n, 30, 40][: n + 1],
            "origin": f"f:{n}",
            "question": Question.of(f"q{n}", {"bonus": n}, None).to_json(),
        }
        for n in range(3)
    ]

    def make(beta: float = 0.0, tell: Any = lambda *_: None, **settings: Any) -> Drawer:
        values: dict[str, Any] = {
            "num_generations": 3,
            "max_completion_length": 7,
            "rollout_batch_size": 4,
        }
        return Drawer(
            model=model,
            tokenizer=tiny_tokenizer,
            stop_token_ids=STOPS,
            rows=rows,
            rewards=[RewardFunction("length", 0.5, length)],
            settings=RolloutSettings(**{**values, **settings}),
            policy=AnswerPolicy(temperature=settings.get("temperature", 1.0)),
            collate=CausalLMCollator(0),
            precision=CPU,
            beta=beta,
            tell=tell,
        )

    return make


def test_answers_stand_by_their_prompts_and_micro_batches(drawer: Any, tiny_tokenizer: Any):
    told: list[Any] = []
    state = torch.get_rng_state()
    parts = drawer(tell=lambda *sample: told.append(sample))([[2, 0], [1]], 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(part) for part in parts] == [6, 3]
    prompts = [tuple(rollout.prompt_ids) for part in parts for rollout in part]
    assert prompts == [(22, 30, 40)] * 3 + [(20,)] * 3 + [(21, 30)] * 3
    for group, bonus in ((parts[0][:3], 2), (parts[0][3:], 0), (parts[1], 1)):
        assert sum(rollout.advantage for rollout in group) == pytest.approx(0, abs=1e-9)
        for rollout in group:
            ended = rollout.answer_ids[-1] in STOPS
            text = tiny_tokenizer.decode(rollout.answer_ids, skip_special_tokens=True)
            found = rollout.reported
            assert found["completions/clipped_ratio"] == (not ended)
            assert found["reward"] == 0.5 * found["rewards/length/mean"]
            if ended:
                assert found["rewards/length/mean"] == len(text) + bonus
    ((seed, samples),) = told
    assert seed == 5
    assert [sample["origin"] for sample in samples] == ["f:2", "f:0", "f:1"]
    assert samples[0]["rewards"]["length"] == parts[0][0].reported["rewards/length/mean"]


def test_the_seed_decides(drawer: Any):
    draw = drawer()
    assert draw([[0, 1]], 5) == draw([[0, 1]], 5)
    assert draw([[0, 1]], 5) != draw([[0, 1]], 6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_old_log_probabilities_are_those_of_the_drawing_policy(
    drawer: Any, model: Any, temperature: float
):
    (rollouts,) = drawer(num_iterations=2, temperature=temperature)([[0, 2]], 5)
    assert model.training, "the model is in the mode that it was in"
    for rollout in rollouts:
        ids = torch.tensor([rollout.prompt_ids + rollout.answer_ids])
        with torch.no_grad():
            log_probs = (model(ids).logits[0] / temperature).log_softmax(-1)
        places = torch.arange(len(rollout.prompt_ids) - 1, ids.shape[1] - 1)
        expected = log_probs[places, torch.tensor(rollout.answer_ids)]
        assert rollout.old_log_probs == pytest.approx(expected.tolist(), abs=1e-5)
        assert rollout.reference_log_probs is None


def test_the_reference_is_the_model_below_the_adapter(drawer: Any, model: Any):
    draw = drawer(beta=0.1)
    tuned = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    (rollouts,) = replace(draw, model=tuned)([[1]], 5)
    rollout = rollouts[0]
    assert rollout.old_log_probs is None
    ids = torch.tensor([rollout.prompt_ids + rollout.answer_ids])
    places = torch.arange(len(rollout.prompt_ids) - 1, ids.shape[1] - 1)
    with torch.no_grad(), tuned.disable_adapter():
        log_probs = tuned(ids).logits[0].log_softmax(-1)
    expected = log_probs[places, torch.tensor(rollout.answer_ids)]
    assert rollout.reference_log_probs == pytest.approx(expected.tolist(), abs=1e-5)


def test_memory_that_runs_out_names_the_setting(drawer: Any, model: Any):
    def fail(*_: Any) -> None:
        raise MemoryError

    hook = model.register_forward_pre_hook(fail)
    with pytest.raises(RunError, match=r"while 4 answers were drawn(.|\n)*rollout_batch_size"):
        drawer()([[0]], 5)
    hook.remove()


def test_other_errors_pass_through(drawer: Any, model: Any):
    def fail(*_: Any) -> None:
        raise RuntimeError("something else")

    hook = model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="something else"):
        drawer()([[0]], 5)
    hook.remove()


def test_the_tokens_are_those_that_generation_draws(drawer: Any, model: Any, tiny_tokenizer: Any):
    (rollouts,) = drawer()([[0]], 5)
    settings = GenerationSettings(max_new_tokens=7, temperature=1.0, batch_size=4, seed=5)
    drawn = generate_tokens(model, tiny_tokenizer, [[20]] * 3, settings, STOPS)
    assert [rollout.answer_ids for rollout in rollouts] == drawn
