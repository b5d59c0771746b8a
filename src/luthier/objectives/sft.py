"""Supervised fine-tuning: cross-entropy on the tokens that the mask chose.

For pre-training that is every token of a document but its first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from luthier.contracts.training import LossSum
from luthier.objectives.causal_lm import (
    causal_lm_loss,
    causal_lm_loss_from_hidden,
    supervised_weight,
)

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.objectives.head import Head


def model_inputs(batch: Batch) -> dict[str, Any]:
    """Choose what of a batch the model gets: token ids, and how its documents are kept apart.

    Rows with position ids may hold several documents, each counted from 0. transformers keeps them
    apart by the position ids, and only where it is given no attention mask: with one, a document
    would see those before it. The mask is not needed: padding stands on the right, where causal
    attention never looks.
    """
    names = ("input_ids", "position_ids" if "position_ids" in batch else "attention_mask")
    return {name: batch[name] for name in names}


@dataclass(frozen=True, slots=True)
class SupervisedFineTuning:
    """The objective of `stage: sft` and `stage: pt`; implements `Objective`.

    Attributes:
        label_smoothing: Share of each target spread evenly over the vocabulary.
        head: The head of the model that is trained (`find_head`): only supervised tokens go
            through it. None computes the model's own logits, of all tokens.
        inputs: Makes the model's keyword arguments from a batch, labels left out, so that no loss
            but this one is computed.
        dft: Whether each token's loss is multiplied by its probability (DFT).
    """

    label_smoothing: float = 0.0
    head: Head | None = None
    inputs: Callable[[Batch], dict[str, Any]] = model_inputs
    dft: bool = False

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the loss weights of a batch."""
        return supervised_weight(batch["labels"], batch.get("loss_weights"))

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch and sum its loss.

        Raises:
            ValueError: The model isn't the one that the head was found in.
        """
        inputs = self.inputs(batch)
        labels_BL, weights_BL = batch["labels"], batch.get("loss_weights")
        if self.head is None:
            logits_BLV = model(**inputs, use_cache=False).logits
            return causal_lm_loss(
                logits_BLV, labels_BL, weights_BL, self.label_smoothing, dft=self.dft
            )
        hidden_BLD = self.head.hidden_states(model, inputs)
        return causal_lm_loss_from_hidden(
            hidden_BLD, labels_BL, self.head, weights_BL, self.label_smoothing, dft=self.dft
        )
