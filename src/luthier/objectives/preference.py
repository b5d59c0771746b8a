"""Preference optimisation on pairs: DPO and its relatives, ORPO, SimPO, CPO.

In: the log-probabilities of the two answers of each pair, by the policy and by the reference,
however they were computed. Out: a sum over pairs and its metrics.

The unit is the pair. Every term of the loss belongs to one pair, and the sum is divided once by the
pairs of the whole step: one batch of 8 pairs equals 8 batches of 1. So the supervised term is the
mean over the tokens of one chosen answer, as in the papers of ORPO and RPO (arXiv 2404.19733), and
in LLaMA-Factory. TRL takes one mean over the chosen tokens of a micro-batch: there, a long answer
weighs more than a short one, and a pair's weight depends on its neighbours. The two agree on pairs
of equal length and on batches of one pair. TRL's ORPO counts the prompt's tokens too; here, as in
the paper, only the answer's. CPO's paper writes a sum over tokens; TRL takes the mean.

Shape suffix: P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from luthier.contracts.preference import PairLogProbs
from luthier.contracts.training import LossSum
from luthier.objectives.metric_sums import mean_of, pair_metrics, weighted_sum
from luthier.objectives.preference_losses import LENGTH_AVERAGED, PAIR_LOSSES, simpo
from luthier.objectives.settings import PreferenceSettings

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

ScorePairs = Callable[[torch.nn.Module, "Batch"], tuple[PairLogProbs, PairLogProbs | None]]
"""From a model and a batch to what the policy and what the reference gives its pairs; the latter is
None where `PreferenceSettings.needs_reference` is false."""


@dataclass(frozen=True, slots=True)
class PairLosses:
    """What became of P pairs; each field is (P,).

    Attributes:
        losses: The loss of each, its supervised term included.
        chosen: Implicit reward of the chosen answer: beta times what the loss compares. In the
            losses of `LENGTH_AVERAGED` this is a mean over tokens (TRL's is a sum with ipo and
            sigmoid_norm), so that the accuracy is about what is trained.
        rejected: The same of the rejected answer.
        supervised: Mean loss of a token of the chosen answer.
    """

    losses: torch.Tensor
    chosen: torch.Tensor
    rejected: torch.Tensor
    supervised: torch.Tensor


def preference_losses(
    policy: PairLogProbs, reference: PairLogProbs | None, settings: PreferenceSettings
) -> PairLosses:
    """Compute the loss and the implicit rewards of each pair.

    Args:
        policy: Of the model that is trained.
        reference: Of the model that it should stay near to; not read where
            `settings.needs_reference` is false.
        settings: Which loss, and its factors.

    Raises:
        ValueError: The loss needs a reference and there is none; or `ld_alpha` is set and the sums
            over the shared length are missing.
    """
    if settings.needs_reference and reference is None:
        raise ValueError(f"pref_loss {settings.pref_loss} needs the reference's log-probabilities")
    chosen_P, rejected_P = _weighed_sums(policy, settings.ld_alpha)
    if settings.needs_reference and reference is not None:
        of_chosen_P, of_rejected_P = _weighed_sums(reference, settings.ld_alpha)
        chosen_P, rejected_P = chosen_P - of_chosen_P, rejected_P - of_rejected_P
    if settings.pref_loss in LENGTH_AVERAGED:
        chosen_P = chosen_P / policy.chosen_tokens.clamp_min(1)
        rejected_P = rejected_P / policy.rejected_tokens.clamp_min(1)
    compare = PAIR_LOSSES[settings.pref_loss]
    if settings.pref_loss == "simpo":
        compare = partial(simpo, gamma=settings.simpo_gamma)
    beta = settings.pref_beta
    losses_P = compare(chosen_P, rejected_P, beta, settings.dpo_label_smoothing)
    supervised_P = -policy.chosen / policy.chosen_tokens.clamp_min(1)
    if settings.supervised_weight:
        losses_P = losses_P + settings.supervised_weight * supervised_P
    return PairLosses(losses_P, beta * chosen_P, beta * rejected_P, supervised_P)


def preference_loss(
    policy: PairLogProbs,
    reference: PairLogProbs | None,
    settings: PreferenceSettings,
    weights_P: torch.Tensor | None = None,
) -> LossSum:
    """Sum `preference_losses` over pairs, each times its weight; `weight` is the sum of these.

    Args:
        policy: Of the model that is trained.
        reference: Of the model that it should stay near to.
        settings: Which loss.
        weights_P: (P,); None: 1 each. Metrics are of pairs, whatever they weigh.

    Raises:
        ValueError: As `preference_losses`.
    """
    pairs = preference_losses(policy, reference, settings)
    metrics = {
        **pair_metrics(pairs.chosen, pairs.rejected),
        "logps/chosen": mean_of(policy.chosen),
        "logps/rejected": mean_of(policy.rejected),
    }
    if settings.supervised_weight:
        metrics["nll_loss"] = mean_of(pairs.supervised)
    total, weight = weighted_sum(pairs.losses, weights_P)
    return LossSum(
        total=total,
        weight=weight,
        num_tokens=(policy.chosen_tokens + policy.rejected_tokens).sum(),
        metrics=metrics,
    )


@dataclass(frozen=True, slots=True)
class PreferenceOptimization:
    """The objective of pairs; implements `Objective`.

    Attributes:
        settings: Which loss.
        score: Computes the log-probabilities of a batch's pairs.
        count_pairs: Returns the pairs of a batch, or the sum of their weights, as a scalar tensor,
            without running a model.
    """

    settings: PreferenceSettings
    score: ScorePairs
    count_pairs: Callable[[Batch], torch.Tensor]

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return the number of pairs, or the sum of their weights."""
        return self.count_pairs(batch)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch of pairs and sum their losses.

        Raises:
            ValueError: As `preference_losses`.
        """
        policy, reference = self.score(model, batch)
        return preference_loss(policy, reference, self.settings, batch.get("weight"))


def _weighed_sums(pairs: PairLogProbs, ld_alpha: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weigh the tokens beyond the length of a pair's shorter answer.

    Source:
        LD-DPO, arXiv 2409.06411: log p of the shared length, and ld_alpha times that of the rest.
    """
    if ld_alpha is None:
        return pairs.chosen, pairs.rejected
    if pairs.chosen_shared is None or pairs.rejected_shared is None:
        raise ValueError(
            "ld_alpha needs sums over the shared length: chosen_shared, rejected_shared"
        )
    return (
        pairs.chosen_shared + ld_alpha * (pairs.chosen - pairs.chosen_shared),
        pairs.rejected_shared + ld_alpha * (pairs.rejected - pairs.rejected_shared),
    )
