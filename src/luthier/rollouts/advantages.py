"""Rewards of groups of answers in, advantages out: how much better than its group an answer is.

Shape suffixes: G groups (one a prompt), N answers of each, F reward functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL."""


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """What became of the answers of some groups; all in float64.

    Attributes:
        total: (G, N) weighted sums of the rewards.
        std: (G,) standard deviation of each group's totals, N - 1 in the divisor.
        advantages: (G, N). A group whose totals are all equal has only zeros, and teaches nothing.
    """

    total: torch.Tensor
    std: torch.Tensor
    advantages: torch.Tensor

    @property
    def is_flat(self) -> torch.Tensor:
        """(G,) whether all totals of a group are equal."""
        return (self.total == self.total[:, :1]).all(dim=1)


def group_rewards(
    rewards_GNF: torch.Tensor, weights_F: torch.Tensor, *, scale: bool
) -> GroupRewards:
    """Hold each answer against the others of its group.

    Args:
        rewards_GNF: What each function gave each answer, float64.
        weights_F: The functions' factors.
        scale: Divide by the standard deviation (GRPO); else only the mean is taken off (Dr. GRPO).

    Source:
        GRPO: arXiv 2402.03300, section 4.1.2. Dr. GRPO: arXiv 2503.20783, section 3.1.
    """
    total_GN = (rewards_GNF * weights_F).sum(dim=2)
    std_G = total_GN.std(dim=1)
    advantages_GN = total_GN - total_GN.mean(dim=1, keepdim=True)
    # The mean of equal numbers may be off by a rounding, which the division would make much of.
    is_flat_G = (total_GN == total_GN[:, :1]).all(dim=1)
    advantages_GN = advantages_GN.masked_fill(is_flat_G[:, None], 0.0)
    if scale:
        advantages_GN = advantages_GN / (std_G[:, None] + EPSILON)
    return GroupRewards(total_GN, std_G, advantages_GN)
