"""Metrics before their division, from tensors of one value a pair or a row.

Nothing here waits for the device: no shape depends on a value.
"""

from __future__ import annotations

import torch

from luthier.contracts.training import MetricSum

CALIBRATION_BINS = 10


def mean_of(values_N: torch.Tensor, among_N: torch.Tensor | None = None) -> MetricSum:
    """Sum values, for their mean.

    Args:
        values_N: One value each; their gradient is left out.
        among_N: Booleans that choose some of them; None: all.
    """
    values_N = values_N.detach()
    if among_N is None:
        return MetricSum(values_N.sum(), values_N.new_full((), len(values_N)))
    return MetricSum((values_N * among_N).sum(), among_N.to(values_N.dtype).sum())


def weighted_sum(
    losses_N: torch.Tensor, weights_N: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of losses, each times its weight, and the sum of the weights.

    Args:
        losses_N: With gradient.
        weights_N: None: 1 each.
    """
    if weights_N is None:
        return losses_N.sum(), losses_N.new_full((), len(losses_N))
    return (losses_N * weights_N).sum(), weights_N.sum()


def pair_metrics(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, prefix: str = "rewards"
) -> dict[str, MetricSum]:
    """Sum the rewards of pairs, their margins, and how often the chosen answer has the higher one.

    Args:
        chosen_P: Rewards of the chosen answers.
        rejected_P: Rewards of the rejected answers. Equal rewards are not right.
        prefix: What stands before the slash in the metrics' names, which are TRL's.
    """
    return {
        f"{prefix}/chosen": mean_of(chosen_P),
        f"{prefix}/rejected": mean_of(rejected_P),
        f"{prefix}/accuracies": mean_of((chosen_P > rejected_P).to(chosen_P.dtype)),
        f"{prefix}/margins": mean_of(chosen_P - rejected_P),
    }


def calibration_error(margins_P: torch.Tensor, num_bins: int = CALIBRATION_BINS) -> MetricSum:
    """Sum, bin by bin, by how much judgements of pairs were surer than they were right.

    A judge whose rewards differ by m holds the higher one for the better with the probability
    sigmoid(|m|), between a half and 1. Of the pairs that it is 80 % sure of, 80 % should be right.
    The mean of this metric is the expected calibration error: the gaps between sureness and
    accuracy in bins of equal width, each weighed by its pairs. Which answer stands first plays no
    part, so the probabilities below a half would tell the same once more.

    Args:
        margins_P: Reward of the chosen less that of the rejected answer. Of equal rewards, half
            count as right.
        num_bins: Between a half and 1.

    Source:
        arXiv 1706.04599, equation 3.
    """
    margins_P = margins_P.detach()
    sureness_P = margins_P.abs().sigmoid()
    is_right_P = torch.heaviside(margins_P, margins_P.new_full((), 0.5))
    bins_P = ((sureness_P - 0.5) * 2 * num_bins).long().clamp(max=num_bins - 1)
    in_bin_PK = bins_P[:, None] == torch.arange(num_bins, device=margins_P.device)
    gaps_K = ((is_right_P - sureness_P)[:, None] * in_bin_PK).sum(0)
    return MetricSum(gaps_K, margins_P.new_full((), len(margins_P)))
