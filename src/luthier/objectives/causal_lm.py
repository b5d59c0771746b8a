"""Next-token cross-entropy, summed: the loss of pre-training and of supervised fine-tuning.

Pure functions of tensors. Shape suffixes: B rows, L tokens, V vocabulary, N supervised tokens.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from luthier.contracts.rows import IGNORE_INDEX
from luthier.contracts.training import LossSum


def causal_lm_loss(
    logits_BLV: torch.Tensor,
    labels_BL: torch.Tensor,
    loss_weights_BL: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> LossSum:
    """Sum the weighted cross-entropy over supervised tokens.

    Position t predicts token t+1: the labels are aligned with the inputs, and HERE they are
    shifted, once. Labels that were shifted before (as on the lecture's slide) and then shifted
    again by the model would teach the model to predict the token after the next.

    Args:
        logits_BLV: The model's output, any float type; the loss is computed in float32.
        labels_BL: Aligned labels; -100 carries no loss.
        loss_weights_BL: Weight of each label, not negative; None is 1 everywhere. A weight of 0
            is the same as a label of -100, in the counts too.
        label_smoothing: Share of each target spread evenly over the vocabulary.

    Returns:
        Sums over the batch; divide `total` by the `weight` of the whole window.

    Source:
        Label smoothing: arXiv 1512.00567, section 7, as in torch's `cross_entropy`.
    """
    targets_BL, supervised_BL = _targets(labels_BL, loss_weights_BL)
    logits_NV = logits_BLV[:, :-1][supervised_BL].float()
    targets_N = targets_BL[supervised_BL]
    losses_N = F.cross_entropy(
        logits_NV, targets_N, reduction="none", label_smoothing=label_smoothing
    )
    weights_N = torch.ones_like(losses_N)
    if loss_weights_BL is not None:
        weights_N = loss_weights_BL[:, 1:][supervised_BL].to(losses_N.dtype)
    return LossSum(
        total=(losses_N * weights_N).sum(),
        weight=weights_N.sum(),
        num_tokens=supervised_BL.sum(),
        num_correct=(logits_NV.detach().argmax(dim=-1) == targets_N).sum(),
    )


def supervised_weight(
    labels_BL: torch.Tensor, loss_weights_BL: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the sum of the weights that `causal_lm_loss` will report, from the labels alone.

    Args:
        labels_BL: Aligned labels.
        loss_weights_BL: Weight of each label; None is 1 everywhere.

    Returns:
        Scalar float32 tensor.
    """
    _, supervised_BL = _targets(labels_BL, loss_weights_BL)
    if loss_weights_BL is None:
        return supervised_BL.sum().float()
    return loss_weights_BL[:, 1:][supervised_BL].float().sum()


def _targets(
    labels_BL: torch.Tensor, loss_weights_BL: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    # The one place that shifts: what position t has to predict, and whether it carries loss.
    targets_BL = labels_BL[:, 1:]
    supervised_BL = targets_BL != IGNORE_INDEX
    if loss_weights_BL is not None:
        supervised_BL = supervised_BL & (loss_weights_BL[:, 1:] != 0)
    return targets_BL, supervised_BL
