"""KTO against TRL's own numbers and the paper's equations, and what its unit is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.contracts.preference import AnswerLogProbs
from luthier.objectives.kto import (
    KahnemanTverskyOptimization,
    kl_estimate,
    kto_loss,
    kto_losses,
)
from luthier.objectives.settings import PreferenceSettings

TRL = json.loads((Path(__file__).parent / "reference" / "trl.json").read_text(encoding="utf-8"))


def answers_of(log_probs_RL: torch.Tensor, mismatched_RL: torch.Tensor) -> AnswerLogProbs:
    tokens = (log_probs_RL != 0).sum(1)
    return AnswerLogProbs(log_probs_RL.sum(1), tokens, mismatched_RL.sum(1))


@pytest.mark.parametrize("case", TRL["kto"], ids=["mixed", "cut off at 0", "weighted", "one label"])
def test_value_gradient_and_metrics_are_the_kto_trainers(case: dict[str, Any]) -> None:
    names = ("policy", "mismatched", "reference", "reference_mismatched")
    given = [torch.tensor(case[name], dtype=torch.float64) for name in names]
    policy = given[0].requires_grad_()
    settings = PreferenceSettings(
        pref_beta=case["beta"],
        kto_chosen_weight=case["kto_chosen_weight"],
        kto_rejected_weight=case["kto_rejected_weight"],
    )
    is_desirable = torch.tensor(case["labels"])
    loss = kto_loss(
        answers_of(policy, given[1]), answers_of(given[2], given[3]), is_desirable, settings
    )
    mean = loss.total / loss.weight
    (gradient,) = torch.autograd.grad(mean, policy)
    assert mean.item() == pytest.approx(case["value"], rel=1e-9)
    expected = torch.tensor(case["gradient"], dtype=torch.float64)
    is_token = policy != 0
    torch.testing.assert_close(gradient[is_token], expected[is_token], rtol=1e-7, atol=1e-9)
    assert loss.num_tokens == is_token.sum()
    for name, metric in loss.metrics.items():
        if name in case["metrics"]:
            assert metric.mean() == pytest.approx(case["metrics"][name], rel=1e-9), name
        else:
            assert float(metric.weight) == 0.0, "TRL leaves out what no row tells"


def test_the_cases_have_both_kinds_of_z0() -> None:
    estimates = [case["metrics"]["kl"] for case in TRL["kto"]]
    assert min(estimates) == 0.0
    assert sum(estimate > 0.5 for estimate in estimates) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kl", [0.0, 1.5])
def test_value_and_gradient_are_the_papers(kl: float, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    numbers = torch.randn(16, generator=random, dtype=torch.float64) * 4
    is_desirable = torch.rand(16, generator=random) < 0.6
    settings = PreferenceSettings(pref_beta=0.7, kto_chosen_weight=1.2, kto_rejected_weight=0.8)
    ours, papers = (numbers.to(to, copy=True).requires_grad_() for to in (dtype, numbers.dtype))
    losses = kto_losses(ours, is_desirable, torch.tensor(kl, dtype=dtype), settings)
    expected = []
    for row, good in enumerate(is_desirable):
        signed = papers[row] - kl if good else kl - papers[row]
        value = (1.2 if good else 0.8) / (1 + torch.exp(-0.7 * signed))
        expected.append((1.2 if good else 0.8) - value)
    torch.testing.assert_close(losses.double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    torch.stack(expected).sum().backward()
    assert ours.grad is not None
    assert papers.grad is not None
    torch.testing.assert_close(ours.grad.double(), papers.grad, rtol=1e-5, atol=1e-5)
    wide = numbers.clone().requires_grad_()
    z0 = torch.tensor(kl, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: kto_losses(x, is_desirable, z0, settings), wide)


def test_far_answers_do_not_overflow() -> None:
    far = torch.tensor([1e6, -1e6, 1e6, -1e6], requires_grad=True)
    good = torch.tensor([True, True, False, False])
    losses = kto_losses(far, good, torch.zeros(()), PreferenceSettings())
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert far.grad is not None
    assert far.grad.tolist() == [0.0] * 4


def random_answers(seed: int, shift: float = 0.0) -> AnswerLogProbs:
    random = torch.Generator().manual_seed(seed)
    answer, mismatched = -torch.rand(2, 8, generator=random, dtype=torch.float64) * 10
    return AnswerLogProbs(
        answer.requires_grad_(), torch.full((8,), 5), (mismatched + shift).requires_grad_()
    )


def test_z0_is_a_mean_cut_off_at_0_without_gradient() -> None:
    policy, reference = random_answers(0, shift=3.0), random_answers(1)
    kl = kl_estimate(policy, reference)
    assert float(kl) == pytest.approx(
        float((policy.mismatched - reference.mismatched).mean()), rel=1e-12
    )
    assert float(kl) > 0
    assert not kl.requires_grad
    assert float(kl_estimate(reference, policy)) == 0.0
    # The mean is cut off, not each of its parts.
    assert (policy.mismatched < reference.mismatched).any()


def part_of(answers: AnswerLogProbs, rows: torch.Tensor) -> AnswerLogProbs:
    return AnswerLogProbs(
        answers.answer[rows], answers.answer_tokens[rows], answers.mismatched[rows]
    )


def test_rows_add_up_given_z0_and_the_micro_batch_is_its_unit() -> None:
    policy, reference = random_answers(0, shift=1.0), random_answers(1)
    is_desirable = torch.arange(8) % 3 != 0
    settings = PreferenceSettings(pref_beta=0.4)

    def score(model: Any, batch: Any) -> tuple[AnswerLogProbs, AnswerLogProbs, torch.Tensor]:
        rows = batch["rows"]
        return part_of(policy, rows), part_of(reference, rows), is_desirable[rows]

    objective = KahnemanTverskyOptimization(
        settings=settings,
        score=score,
        count_answers=lambda batch: torch.tensor(float(len(batch["rows"]))),
    )
    model, batch = torch.nn.Identity(), {"rows": torch.arange(8)}
    whole = objective(model, batch)
    parts = [objective(model, {"rows": rows}) for rows in batch["rows"].split(4)]
    assert float(objective.weight(batch)) == sum(float(part.weight) for part in parts) == 8.0
    for name, metric in whole.metrics.items():
        found = parts[0].metrics[name] + parts[1].metrics[name]
        if name != "kl":
            assert found.mean() == pytest.approx(metric.mean(), rel=1e-12), name

    log_ratios = policy.answer - reference.answer
    kl = kl_estimate(policy, reference)
    at_once = kto_losses(log_ratios, is_desirable, kl, settings)
    one_by_one = [
        kto_losses(log_ratios[row : row + 1], is_desirable[row : row + 1], kl, settings)
        for row in range(8)
    ]
    torch.testing.assert_close(torch.cat(one_by_one), at_once, rtol=0, atol=0)
    assert float(whole.total) == pytest.approx(float(at_once.sum()), rel=1e-12)
    # Each micro-batch has a z0 of its own, as in TRL: halves are not the whole.
    halves = sum(float(part.total) for part in parts)
    assert halves != pytest.approx(float(whole.total), rel=1e-4)


def test_mismatched_answers_get_no_gradient() -> None:
    policy, reference = random_answers(0, shift=3.0), random_answers(1)
    loss = kto_loss(policy, reference, torch.arange(8) < 4, PreferenceSettings())
    loss.total.backward()
    assert policy.answer.grad is not None
    assert policy.answer.grad.any()
    assert policy.mismatched.grad is None
