"""Group relative policy optimisation: what TRL's loss gives, over the whole step at once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from luthier.batches.collate import causal_lm_collate
from luthier.batches.cutting import split_batch
from luthier.batches.flat import flat_collate
from luthier.contracts.training import LossSum
from luthier.models.segments import SEGMENTS, packed_inputs, register_segments
from luthier.objectives.find_head import find_head
from luthier.objectives.grpo import (
    REPORTED,
    AnswerPolicy,
    AnswerTokens,
    GroupRelativePolicyOptimization,
    grpo_losses,
)
from luthier.objectives.settings import GrpoSettings

TRL = json.loads((Path(__file__).parent / "reference" / "grpo_trl.json").read_text())
NOTHING = torch.nn.Module()
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
ANSWERS = ((3, 4), (1, 1), (5, 2), (2, 7))
"""Tokens of prompt and answer."""


class Scripted:
    """A policy whose log-probabilities stand in the batch."""

    def log_probs(self, model: Any, batch: Any, tokens: AnswerTokens) -> torch.Tensor:
        return tokens.take(batch["policy"])


def trl_batch(number: int) -> dict[str, torch.Tensor]:
    """Return a micro-batch of the reference, a prompt of one token before each answer."""
    of = {
        name: torch.nn.functional.pad(torch.tensor(TRL[name][number], dtype=torch.float64), (1, 0))
        for name in ("policy", "old", "reference")
    }
    batch = {
        "labels": torch.where(of["policy"] == 0, -100, 7),
        "policy": of["policy"].requires_grad_(),
        "old_log_probs": of["old"],
        "reference_log_probs": of["reference"],
    }
    advantages = torch.tensor(TRL["advantages"][number], dtype=torch.float64)
    return batch | {"advantages": advantages[:, None].expand_as(of["old"])}


@pytest.mark.parametrize("case", TRL["cases"], ids=lambda case: case["loss_type"])
def test_value_and_gradient_are_those_of_trl(case: dict[str, Any]):
    names = ("loss_type", "epsilon", "epsilon_high", "beta")
    settings = GrpoSettings(**{name: case[name] for name in names})
    policy: Any = Scripted()
    objective = GroupRelativePolicyOptimization(settings, policy, TRL["max_length"])
    batches = [trl_batch(number) for number in range(2)]
    for batch in batches if not case["old"] else ():
        del batch["old_log_probs"]
    found = [objective(NOTHING, batch) for batch in batches]
    weight = sum(float(objective.weight(batch)) for batch in batches)
    assert weight == sum(float(loss.weight) for loss in found)
    total = torch.stack([loss.total for loss in found]).sum() / weight
    assert float(total.detach()) == pytest.approx(case["value"], abs=1e-9)
    gradients = torch.autograd.grad(total, [batch["policy"] for batch in batches])
    for gradient, expected in zip(gradients, case["gradient"], strict=True):
        assert torch.allclose(gradient[:, 1:], torch.tensor(expected, dtype=torch.float64))
    clipped = [float(loss.metrics["clip_ratio"].mean()) for loss in found]
    assert clipped == pytest.approx(case["metrics"]["clip_ratio/region_mean"])
    if settings.beta:
        kl = [loss.metrics["kl"].mean() for loss in found]
        assert kl == pytest.approx(case["metrics"]["kl"], rel=1e-6)


def test_bnpo_over_the_whole_step_is_dapo():
    assert GrpoSettings.model_validate({"loss_type": "bnpo"}).loss_type == "dapo"


def test_kl_without_a_reference_is_refused():
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="beta needs the reference"):
        grpo_losses(one, one, None, one, GrpoSettings(beta=0.1))


def rows() -> list[dict[str, list[int]]]:
    random = torch.Generator().manual_seed(1)
    made: list[dict[str, list[int]]] = []
    for prompt, answer in ANSWERS:
        ids = torch.randint(3, 61, (prompt + answer,), generator=random).tolist()
        made.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return made


def with_values(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put an advantage, and something to report, at each answer token."""
    tokens = AnswerTokens.of(batch["labels"])
    for name, values_A in (
        ("advantages", torch.tensor([1.0, -0.5, 0.25, 2.0])),
        (f"{REPORTED}reward", torch.tensor([1.0, 0.0, 0.0, 3.0])),
    ):
        values_BL = torch.zeros(batch["labels"].shape)
        values_BL[tokens.rows, tokens.columns] = values_A[tokens.answers]
        batch[name] = values_BL
    return batch


def make_model(family: str = "Llama", **sizes: Any) -> Any:
    register_segments()
    torch.manual_seed(0)
    config = getattr(hf, f"{family}Config")(**SIZES, **sizes)
    return hf.AutoModelForCausalLM.from_config(config, attn_implementation=SEGMENTS)


def gradients(model: Any, loss: LossSum) -> torch.Tensor:
    loss.total.backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return found


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_laid_out_in_any_way_the_sum_is_the_same(loss_type: Any):
    model = make_model()
    settings = GrpoSettings(loss_type=loss_type)
    padded = with_values(causal_lm_collate(rows(), 0))
    flat = with_values(flat_collate(rows()))
    plain = GroupRelativePolicyOptimization(settings, AnswerPolicy(), 9)
    head = find_head(model)[0]
    assert head is not None
    packed = GroupRelativePolicyOptimization(settings, AnswerPolicy(head, packed_inputs), 9)
    headed = GroupRelativePolicyOptimization(settings, AnswerPolicy(head), 9)
    expected = plain(model, padded)
    weight = {"dapo": sum(answer for _, answer in ANSWERS)}.get(loss_type, len(ANSWERS))
    assert float(expected.weight) == float(plain.weight(padded)) == weight
    assert expected.metrics["reward"].mean() == 1.0
    assert expected.metrics["completions/mean_length"].mean() == 3.5
    gradient = gradients(model, expected)
    parts = split_batch(flat, 12)
    assert len(parts) > 2
    for objective, batches in ((headed, [padded]), (packed, [flat]), (packed, parts)):
        losses = [objective(model, batch) for batch in batches]
        assert sum(float(loss.weight) for loss in losses) == weight
        total = torch.stack([loss.total for loss in losses]).sum()
        # The loss itself is nothing but the advantages: what is learned is in the gradient.
        assert float(total.detach()) == pytest.approx(float(expected.total.detach()), abs=1e-5)
        summed = sum(gradients(model, objective(model, batch)) for batch in batches)
        assert torch.allclose(torch.as_tensor(summed), gradient, atol=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_tempered_logits(family: str, temperature: float):
    softcap = {"final_logit_softcapping": 2.0} if family == "Gemma2" else {}
    model = make_model(family, **softcap)
    batch = causal_lm_collate(rows(), 0)
    tokens = AnswerTokens.of(batch["labels"])
    head = find_head(model)[0]
    assert head is not None
    found = AnswerPolicy(head, temperature=temperature).log_probs(model, batch, tokens)
    number = 0
    for row in rows():
        ids = torch.tensor([row["input_ids"]])
        expected = (model(ids).logits[0, :-1].double() / temperature).log_softmax(-1)
        for place, label in enumerate(row["labels"]):
            if label != -100:
                wanted = float(expected[place - 1, label].detach())
                assert float(found[number].detach()) == pytest.approx(wanted, abs=1e-5)
                number += 1
    assert number == len(found)


def test_answers_are_found_by_their_runs_of_labels():
    labels = torch.tensor([[-100, 5, 6, -100, -100, 7], [-100, -100, 8, 9, -100, -100]])
    tokens = AnswerTokens.of(labels)
    assert tokens.lengths.tolist() == [2, 1, 2]
    assert tokens.answers.tolist() == [0, 0, 1, 2, 2]
    assert tokens.starts.tolist() == [0, 2, 3]
    assert math.isclose(float(tokens.take(labels.double()).sum()), 35.0)
