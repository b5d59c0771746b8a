"""Supervised fine-tuning: cross-entropy on the tokens that the mask chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from luthier.contracts.training import LossSum
from luthier.objectives.causal_lm import causal_lm_loss, supervised_weight

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class SupervisedFineTuning:
    """The objective of `stage: sft`; implements `Objective`."""

    label_smoothing: float = 0.0

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the loss weights of a batch."""
        return supervised_weight(batch["labels"], batch.get("loss_weights"))

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model without labels, so that no loss but this one is computed.

        Rows with position ids may hold several documents, each counted from 0. transformers keeps
        them apart by the position ids, and only where it is given no attention mask: with one, a
        document would see those before it. The mask is not needed: padding stands on the right,
        where causal attention never looks.
        """
        inputs = {"input_ids": batch["input_ids"]}
        mask = "position_ids" if "position_ids" in batch else "attention_mask"
        inputs[mask] = batch[mask]
        logits = model(**inputs, use_cache=False).logits
        return causal_lm_loss(
            logits, batch["labels"], batch.get("loss_weights"), self.label_smoothing
        )
