"""The loss of reward models against TRL's own numbers, and against the equations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.objectives.reward import PairRewards, RewardModelling, reward_loss, reward_losses
from luthier.objectives.settings import RewardSettings

TRL = json.loads((Path(__file__).parent / "reference" / "trl.json").read_text(encoding="utf-8"))
TOKENS = torch.tensor(30)


def settings_of(centering: float | None) -> RewardSettings:
    return RewardSettings(center_rewards_coefficient=centering or 0.0)


@pytest.mark.parametrize("case", TRL["reward"], ids=["plain", "margins", "centred"])
def test_value_gradient_and_metrics_are_trls(case: dict[str, Any]) -> None:
    rewards = torch.tensor(case["rewards"], dtype=torch.float64, requires_grad=True)
    chosen, rejected = rewards.chunk(2)
    margins = None if case["margins"] is None else torch.tensor(case["margins"]).double()
    loss = reward_loss(
        PairRewards(chosen, rejected, TOKENS, margins), settings_of(case["centering"])
    )
    mean = loss.total / loss.weight
    (gradient,) = torch.autograd.grad(mean, rewards)
    assert mean.item() == pytest.approx(case["value"], rel=1e-9)
    expected = torch.tensor(case["gradient"], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-7)
    metrics = {name: metric.mean() for name, metric in loss.metrics.items()}
    assert metrics["rewards/accuracies"] == pytest.approx(case["metrics"]["accuracy"])
    assert metrics["rewards/margins"] == pytest.approx(case["metrics"]["margin"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("with_margins", [False, True])
@pytest.mark.parametrize("centering", [0.0, 0.1])
def test_value_and_gradient_are_the_papers(
    dtype: torch.dtype, with_margins: bool, centering: float
) -> None:
    random = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 20, generator=random, dtype=torch.float64) * 3
    ours = [numbers[i].to(dtype).requires_grad_() for i in (0, 1)]
    papers = [numbers[i].clone().requires_grad_() for i in (0, 1)]
    margins = numbers[2].abs() if with_margins else torch.zeros(20, dtype=torch.float64)
    given = margins.to(dtype) if with_margins else None
    losses = reward_losses(ours[0], ours[1], given, centering)
    wins = 1 / (1 + torch.exp(-(papers[0] - papers[1] - margins)))
    expected = -wins.log() + centering * (papers[0] + papers[1]).square()
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    for one, other in zip(ours, papers, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)
    wide = [numbers[i].clone().requires_grad_() for i in range(2)]
    assert torch.autograd.gradcheck(lambda c, r: reward_losses(c, r, margins, centering), wide)


def test_rewards_far_apart_do_not_overflow() -> None:
    chosen = torch.tensor([1e5, -1e5, 0.0], requires_grad=True)
    losses = reward_losses(chosen, -chosen)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 2e5, math.log(2)])
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [0.0, -2.0, -1.0]


def test_one_batch_of_8_is_8_batches_of_1() -> None:
    random = torch.Generator().manual_seed(1)
    chosen, rejected, margins = torch.randn(3, 8, generator=random)

    def score(model: Any, batch: Any) -> PairRewards:
        rows = batch["rows"]
        tokens = rows.new_full((), 7 * len(rows))
        return PairRewards(chosen[rows], rejected[rows], tokens, margins[rows])

    objective = RewardModelling(
        settings=settings_of(0.1),
        score=score,
        count_pairs=lambda batch: torch.tensor(float(len(batch["rows"]))),
    )
    model = torch.nn.Identity()
    batch = {"rows": torch.arange(8)}
    whole = objective(model, batch)
    parts = [objective(model, {"rows": row[None]}) for row in batch["rows"]]
    assert sum(float(part.total) for part in parts) == pytest.approx(float(whole.total), rel=1e-6)
    assert sum(float(part.weight) for part in parts) == float(whole.weight) == 8.0
    assert float(objective.weight(batch)) == 8.0
    assert (int(whole.num_tokens), whole.num_correct) == (56, None)
    for name, metric in whole.metrics.items():
        first, *others = (part.metrics[name] for part in parts)
        for other in others:
            first += other
        assert first.mean() == pytest.approx(metric.mean(), rel=1e-5), name
    assert "rewards/calibration_error" in whole.metrics


def test_weights_scale_pairs_and_the_divisor_but_no_metric() -> None:
    random = torch.Generator().manual_seed(2)
    chosen, rejected = torch.randn(2, 6, generator=random)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 1.0, 1.0])
    rewards = PairRewards(chosen, rejected, TOKENS)
    plain = reward_loss(rewards, settings_of(0.1))
    loss = reward_loss(rewards, settings_of(0.1), weights)
    expected = (weights * reward_losses(chosen, rejected, None, 0.1)).sum()
    torch.testing.assert_close(loss.total, expected)
    assert loss.weight.item() == 5.5
    for name, metric in loss.metrics.items():
        assert metric.mean() == plain.metrics[name].mean()
    objective = RewardModelling(
        settings_of(0.1), lambda _model, _batch: rewards, lambda batch: batch["weight"].sum()
    )
    found = objective(torch.nn.Identity(), {"weight": weights})
    assert torch.equal(found.total, loss.total)
