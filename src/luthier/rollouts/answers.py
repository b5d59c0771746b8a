"""Answers that the model drew, as rows and batches that it is trained on.

In: prompts, drawn tokens, and what is known of each answer. Out: batches in which that stands at
each of the answer's tokens, as `objectives/grpo.py` reads it. A rollout is plain JSON too: it is
kept in checkpoints, for it can't be drawn again once the weights have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

from luthier.batches.collate import Collate
from luthier.contracts.rows import IGNORE_INDEX
from luthier.objectives.grpo import REPORTED


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer to one prompt.

    Attributes:
        prompt_ids: Tokens of the prompt.
        answer_ids: Tokens of the answer, the one that stopped it included.
        advantage: How much better than its group it is.
        reported: What is logged of it, by name.
        old_log_probs: Of each answer token when it was drawn; None where nothing is learned before
            the answer is used up.
        reference_log_probs: Of each answer token by the reference; None where there is no KL.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    advantage: float
    reported: Mapping[str, float] = field(default_factory=dict)
    old_log_probs: list[float] | None = None
    reference_log_probs: list[float] | None = None

    def row(self) -> dict[str, list[int]]:
        """Return prompt and answer as a prepared row, in which the answer is taught."""
        return {
            "input_ids": [*self.prompt_ids, *self.answer_ids],
            "labels": [IGNORE_INDEX] * len(self.prompt_ids) + list(self.answer_ids),
        }


def rollout_batch(rollouts: Sequence[Rollout], collate: Collate) -> dict[str, torch.Tensor]:
    """Return a micro-batch of answers.

    Args:
        rollouts: At least one; all of them have log-probabilities, or none.
        collate: Pads rows or lays them end to end (`build_collator`).
    """
    batch = collate([rollout.row() for rollout in rollouts])
    is_answer_BL = batch["labels"] != IGNORE_INDEX

    def place(values_of: Callable[[Rollout], Sequence[float]]) -> torch.Tensor:
        values_BL = torch.zeros(is_answer_BL.shape)
        # Row by row, the answers' tokens stand in the order of the answers in either layout.
        values_BL[is_answer_BL] = torch.tensor(list(chain.from_iterable(map(values_of, rollouts))))
        return values_BL

    def at_each_token(value: Callable[[Rollout], float]) -> torch.Tensor:
        return place(lambda rollout: [value(rollout)] * len(rollout.answer_ids))

    batch["advantages"] = at_each_token(lambda rollout: rollout.advantage)
    for name in rollouts[0].reported:
        batch[REPORTED + name] = at_each_token(lambda rollout, name=name: rollout.reported[name])
    if rollouts[0].old_log_probs is not None:
        batch["old_log_probs"] = place(lambda rollout: rollout.old_log_probs or [])
    if rollouts[0].reference_log_probs is not None:
        batch["reference_log_probs"] = place(lambda rollout: rollout.reference_log_probs or [])
    return batch


def from_json(value: Mapping[str, Any]) -> Rollout:
    """Return the rollout that `dataclasses.asdict` made a dict of."""
    return Rollout(**value)
