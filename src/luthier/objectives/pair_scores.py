"""What the policy and the reference give the answers of a batch, for objectives to compare.

The reference's numbers were computed before training and stand in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from luthier.contracts.preference import AnswerLogProbs, PairLogProbs
from luthier.objectives.pair_log_probs import pair_log_probs

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.objectives.head import Head

_REFERENCE = ("chosen", "rejected", "chosen_shared", "rejected_shared")


@dataclass(frozen=True, slots=True)
class PairScorer:
    """Scores pairs of ranked answers.

    Attributes:
        head: The head of the model that is trained, if it could be found.
        needs_reference: Whether the objective compares the policy with a reference.
    """

    head: Head | None
    needs_reference: bool = True

    def __call__(
        self, model: torch.nn.Module, batch: Batch
    ) -> tuple[PairLogProbs, PairLogProbs | None]:
        """Run the policy on a batch of pairs; the reference is None where none is needed.

        Raises:
            ValueError: As `pair_log_probs`, or the batch lacks the reference's numbers.
        """
        policy = pair_log_probs(self.head, model, batch)
        return policy, _reference(policy, batch) if self.needs_reference else None


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Scores answers with a verdict. Behind each stands the answer to another prompt.

    Attributes:
        head: The head of the model that is trained, if it could be found.
    """

    head: Head | None

    def __call__(
        self, model: torch.nn.Module, batch: Batch
    ) -> tuple[AnswerLogProbs, AnswerLogProbs, torch.Tensor]:
        """Run the policy on a batch of answers; the third is (R,), which of them are desirable.

        Raises:
            ValueError: As `PairScorer`.
        """
        policy = pair_log_probs(self.head, model, batch)
        reference = _reference(policy, batch)
        return _answers(policy), _answers(reference), batch["desirable"]


def count_pairs(batch: Batch) -> torch.Tensor:
    """Return the pairs, or answers with a verdict, of a batch, or the sum of their weights."""
    return batch["weight"].sum() if "weight" in batch else batch["num_rows"]


def _answers(pairs: PairLogProbs) -> AnswerLogProbs:
    return AnswerLogProbs(pairs.chosen, pairs.chosen_tokens, pairs.rejected.detach())


def _reference(policy: PairLogProbs, batch: Batch) -> PairLogProbs:
    missing = [name for name in _REFERENCE if f"reference_{name}" not in batch]
    if missing:
        raise ValueError(
            f"the batch has no reference_{missing[0]}: compute the reference's log-probabilities "
            "before training, and add them to the rows"
        )
    sums = {name: batch[f"reference_{name}"] for name in _REFERENCE}
    return PairLogProbs(
        chosen_tokens=policy.chosen_tokens, rejected_tokens=policy.rejected_tokens, **sums
    )
