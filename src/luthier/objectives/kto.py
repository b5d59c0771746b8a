"""KTO: answers that are desirable or not, without pairs.

The loss of a row is 1 - sigmoid of how far its reward lies on the right side of a point of
reference z0: the KL divergence between policy and reference, estimated from answers that stand
after other rows' prompts. z0 has no gradient, is never negative, and is the same for all rows that
it was estimated with: the rows of a micro-batch.

So the micro-batch is the unit. Given z0, rows add up exactly, whatever batch they stand in. But
more rows give a better z0, and a mean that is cut off at 0 is the larger the fewer rows it is over:
to halve the micro-batch and double the accumulation is not quite the same training, in TRL either.
A micro-batch needs two rows at least, and should be cut no smaller than it was asked for. z0 is
this process's own; several would take the mean of theirs before it is cut off at 0.

Shape suffixes: R rows, M mismatched answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from luthier.contracts.preference import AnswerLogProbs
from luthier.contracts.training import LossSum, MetricSum
from luthier.objectives.metric_sums import mean_of, weighted_sum
from luthier.objectives.settings import PreferenceSettings

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

ScoreAnswers = Callable[
    [torch.nn.Module, "Batch"], tuple[AnswerLogProbs, AnswerLogProbs, torch.Tensor]
]
"""From a model and a batch to what the policy and what the reference gives its answers, and (R,)
booleans: which are desirable."""


def kl_estimate(policy: AnswerLogProbs, reference: AnswerLogProbs) -> torch.Tensor:
    """Estimate z0, the KL divergence of the policy from the reference.

    Returns:
        Scalar without gradient, 0 at least: the mean log-ratio of the mismatched answers.

    Source:
        arXiv 2402.01306.
    """
    log_ratios_M = policy.mismatched - reference.mismatched
    return log_ratios_M.detach().mean().clamp_min(0)


def kto_losses(
    log_ratios_R: torch.Tensor,
    is_desirable_R: torch.Tensor,
    kl: torch.Tensor,
    settings: PreferenceSettings,
) -> torch.Tensor:
    """Compute the loss of each answer.

    Args:
        log_ratios_R: Log-probability by the policy less that by the reference.
        is_desirable_R: Booleans.
        kl: z0, a scalar.
        settings: `pref_beta` and the two weights.

    Returns:
        (R,) losses between 0 and the row's weight.

    Source:
        arXiv 2402.01306. Losses are divided by all rows, whatever their weights.
    """
    # 1 - sigmoid(x) is sigmoid(-x), without cancellation where x is large.
    distances_R = settings.pref_beta * (log_ratios_R - kl)
    of_desirable_R = settings.kto_chosen_weight * (-distances_R).sigmoid()
    of_undesirable_R = settings.kto_rejected_weight * distances_R.sigmoid()
    return of_desirable_R.where(is_desirable_R, of_undesirable_R)


def kto_loss(
    policy: AnswerLogProbs,
    reference: AnswerLogProbs,
    is_desirable_R: torch.Tensor,
    settings: PreferenceSettings,
    weights_R: torch.Tensor | None = None,
) -> LossSum:
    """Sum `kto_losses` over the rows of one micro-batch, each times its weight.

    Args:
        policy: Of the model that is trained.
        reference: Of the model that it should stay near to.
        is_desirable_R: Booleans; all may be the same.
        settings: `pref_beta` and the two weights.
        weights_R: (R,), the rows' own; None: 1 each. `weight` is the sum of these.
    """
    kl = kl_estimate(policy, reference)
    log_ratios_R = policy.answer - reference.answer
    losses_R = kto_losses(log_ratios_R, is_desirable_R, kl, settings)
    num_rows = losses_R.new_full((), len(losses_R))
    rewards_R = settings.pref_beta * log_ratios_R
    total, weight = weighted_sum(losses_R, weights_R)
    return LossSum(
        total=total,
        weight=weight,
        num_tokens=policy.answer_tokens.sum(),
        metrics={
            "rewards/chosen": mean_of(rewards_R, is_desirable_R),
            "rewards/rejected": mean_of(rewards_R, ~is_desirable_R),
            "logps/chosen": mean_of(policy.answer, is_desirable_R),
            "logps/rejected": mean_of(policy.answer, ~is_desirable_R),
            "kl": MetricSum(kl * num_rows, num_rows),
        },
    )


@dataclass(frozen=True, slots=True)
class KahnemanTverskyOptimization:
    """The objective of answers that are judged by themselves; implements `Objective`.

    Attributes:
        settings: `pref_beta` and the two weights.
        score: Computes the log-probabilities of a batch's answers.
        count_answers: Returns the rows of a batch, as a scalar tensor, without running a model.
    """

    settings: PreferenceSettings
    score: ScoreAnswers
    count_answers: Callable[[Batch], torch.Tensor]

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return the number of rows, or the sum of their weights."""
        return self.count_answers(batch)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch of answers and sum their losses."""
        policy, reference, is_desirable_R = self.score(model, batch)
        weights_R = batch.get("weight")
        return kto_loss(policy, reference, is_desirable_R, self.settings, weights_R)
