"""The loss of each token of a row: what a model knows already, and what it would have to learn.

Shape suffixes: L tokens of the row, V vocabulary, N supervised tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from luthier.contracts.rows import IGNORE_INDEX
from luthier.engine.precision import Precision


def token_losses(
    model: torch.nn.Module,
    row: Mapping[str, Sequence[Any]],
    *,
    precision: Precision,
    device: torch.device,
) -> list[float | None]:
    """Return the cross-entropy of each token given those before it.

    Args:
        model: A causal language model; goes back to the mode that it was in.
        row: A prepared row, with aligned labels.
        precision: The precision that training would compute in.
        device: Where the model is.

    Returns:
        L values, in nats; None where the label carries no loss.
    """
    ids_L = torch.tensor(row["input_ids"], device=device)
    targets = torch.tensor(row["labels"][1:], device=device)
    supervised = targets != IGNORE_INDEX
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), precision.autocast():
            logits_LV = model(input_ids=ids_L[None], use_cache=False).logits[0]
    finally:
        model.train(was_training)
    losses_N = F.cross_entropy(
        logits_LV[:-1][supervised].float(), targets[supervised], reduction="none"
    )
    values = iter(losses_N.tolist())
    return [None, *(next(values) if taught else None for taught in supervised.tolist())]
