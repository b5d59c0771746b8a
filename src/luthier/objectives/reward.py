"""Reward modelling: of two answers, the better one gets the higher reward (Bradley-Terry).

In: one reward an answer, from a model's value head. Out: a sum over pairs and its metrics: rewards,
accuracy, margin and calibration. Shape suffix: P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import logsigmoid

from luthier.contracts.training import LossSum
from luthier.objectives.metric_sums import calibration_error, pair_metrics, weighted_sum
from luthier.objectives.settings import RewardSettings

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class PairRewards:
    """What a reward model gives the answers of P pairs.

    Attributes:
        chosen: (P,) rewards with gradient, in float32 or wider.
        rejected: (P,) the same of the rejected answers.
        num_tokens: Scalar, the tokens that were read for it.
        margins: (P,) by how much the chosen reward should be higher; None: 0 everywhere.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    num_tokens: torch.Tensor
    margins: torch.Tensor | None = None


ScoreRewards = Callable[[torch.nn.Module, "Batch"], PairRewards]
"""From a model and a batch to the rewards of its pairs."""


def reward_losses(
    chosen_P: torch.Tensor,
    rejected_P: torch.Tensor,
    margins_P: torch.Tensor | None = None,
    centering: float = 0.0,
) -> torch.Tensor:
    """Compute the loss of each pair: -log sigmoid(chosen - rejected - margin), and the centring.

    Args:
        chosen_P: Rewards of the chosen answers.
        rejected_P: Rewards of the rejected answers.
        margins_P: By how much the chosen reward should be higher; None: 0 everywhere.
        centering: Weight of the square of a pair's summed rewards.

    Source:
        arXiv 2203.02155, equation 1; margins: arXiv 2307.09288, equation 2; centring:
        arXiv 2312.09244.
    """
    differences_P = chosen_P - rejected_P
    losses_P = -logsigmoid(differences_P if margins_P is None else differences_P - margins_P)
    return losses_P + centering * (chosen_P + rejected_P) ** 2 if centering else losses_P


def reward_loss(
    rewards: PairRewards, settings: RewardSettings, weights_P: torch.Tensor | None = None
) -> LossSum:
    """Sum `reward_losses` over pairs, each times its weight; `weight` is the sum of these.

    Metrics are of pairs, whatever they weigh; `weights_P` of None is 1 each.
    `rewards/calibration_error` holds the model's sureness, sigmoid of the difference of two
    rewards, against its accuracy; margins play no part in it.
    """
    losses_P = reward_losses(
        rewards.chosen, rewards.rejected, rewards.margins, settings.center_rewards_coefficient
    )
    calibration = calibration_error(rewards.chosen - rewards.rejected)
    total, weight = weighted_sum(losses_P, weights_P)
    return LossSum(
        total=total,
        weight=weight,
        num_tokens=rewards.num_tokens,
        metrics={
            **pair_metrics(rewards.chosen, rewards.rejected),
            "rewards/calibration_error": calibration,
        },
    )


@dataclass(frozen=True, slots=True)
class RewardModelling:
    """The objective of reward models; implements `Objective`.

    Attributes:
        settings: The centring.
        score: Computes the rewards of a batch's pairs.
        count_pairs: Returns the pairs of a batch, or the sum of their weights, as a scalar tensor,
            without running a model.
    """

    settings: RewardSettings
    score: ScoreRewards
    count_pairs: Callable[[Batch], torch.Tensor]

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return the number of pairs, or the sum of their weights."""
        return self.count_pairs(batch)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch of pairs and sum their losses."""
        return reward_loss(self.score(model, batch), self.settings, batch.get("weight"))
