"""Next-token cross-entropy, summed: the loss of pre-training and of supervised fine-tuning.

Pure functions of tensors, from logits or, better, from the hidden states under them: then the head
runs only over tokens that carry loss. Shape suffixes: B rows, L tokens, D width of the hidden
states, V vocabulary, N supervised tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from luthier.contracts.rows import IGNORE_INDEX
from luthier.contracts.training import LossSum

if TYPE_CHECKING:
    from luthier.objectives.head import Head


def causal_lm_loss(
    logits_BLV: torch.Tensor,
    labels_BL: torch.Tensor,
    loss_weights_BL: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    *,
    dft: bool = False,
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
        dft: Multiply each token's loss by its probability, which counts as a constant: a token that
            the model finds unlikely then pulls no harder than a likely one.

    Returns:
        Sums over the batch; divide `total` by the `weight` of the whole window.

    Source:
        Label smoothing: arXiv 1512.00567, section 7, as in torch's `cross_entropy`. Dynamic
        fine-tuning (DFT): arXiv 2508.05629.
    """
    targets_BL, supervised_BL = _targets(labels_BL, loss_weights_BL)
    logits_NV = logits_BLV[:, :-1][supervised_BL].float()
    targets_N = targets_BL[supervised_BL]
    losses_N = F.cross_entropy(
        logits_NV, targets_N, reduction="none", label_smoothing=label_smoothing
    )
    if dft:
        probabilities_NV = logits_NV.detach().softmax(dim=-1)
        losses_N = losses_N * probabilities_NV.gather(1, targets_N[:, None])[:, 0]
    weights_N = _weights(supervised_BL, loss_weights_BL)
    return LossSum(
        total=(losses_N * weights_N).sum(),
        weight=weights_N.sum(),
        num_tokens=supervised_BL.sum(),
        num_correct=(logits_NV.detach().argmax(dim=-1) == targets_N).sum(),
    )


def causal_lm_loss_from_hidden(
    hidden_BLD: torch.Tensor,
    labels_BL: torch.Tensor,
    head: Head,
    loss_weights_BL: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    *,
    dft: bool = False,
) -> LossSum:
    """Sum what `causal_lm_loss` sums, from the hidden states that the head would take.

    Only tokens that carry loss go through the head, and of their logits only a chunk exists at a
    time. Packed rows are like others: the first label of each document is -100, so no token is
    scored on the document after its own.

    Args:
        hidden_BLD: The decoder's output.
        labels_BL: Aligned labels; -100 carries no loss.
        head: The head of the model that the hidden states come from.
        loss_weights_BL: Weight of each label, not negative; None is 1 everywhere.
        label_smoothing: Share of each target spread evenly over the vocabulary.
        dft: Multiply each token's loss by its probability, which counts as a constant.

    Returns:
        Sums over the batch, as `causal_lm_loss` returns them.
    """
    targets_BL, supervised_BL = _targets(labels_BL, loss_weights_BL)
    weights_N = _weights(supervised_BL, loss_weights_BL)
    hidden_ND = hidden_BLD[:, :-1][supervised_BL]
    rows = head.cross_entropy(
        hidden_ND,
        targets_BL[supervised_BL],
        None if loss_weights_BL is None else weights_N,
        label_smoothing,
        dft,
    )
    return LossSum(
        total=rows.total,
        weight=weights_N.sum(),
        num_tokens=supervised_BL.sum(),
        num_correct=rows.correct.sum(),
    )


def token_log_probs(hidden_BLD: torch.Tensor, labels_BL: torch.Tensor, head: Head) -> torch.Tensor:
    """Return the log-probability of each labelled token, with gradient.

    Args:
        hidden_BLD: The decoder's output.
        labels_BL: Aligned labels; -100 carries no loss.
        head: The head of the model that the hidden states come from.

    Returns:
        (B, L) values of float32, aligned with the labels: position t has log p(label t | before),
        and 0 where there is no label, so that a sum over a row is its answer's log-probability.
    """
    targets_BL, supervised_BL = _targets(labels_BL, None)
    log_probs_N = head.log_probs(hidden_BLD[:, :-1][supervised_BL], targets_BL[supervised_BL])
    result_BL = log_probs_N.new_zeros(labels_BL.shape)
    result_BL[:, 1:][supervised_BL] = log_probs_N
    return result_BL


def log_probs_after(
    hidden_BLD: torch.Tensor,
    predictors_N: torch.Tensor,
    targets_N: torch.Tensor,
    head: Head,
) -> torch.Tensor:
    """Return the log-probability of tokens after the positions that predict them, with gradient.

    For rows in which a token does not stand behind the one that predicts it: the first token of an
    answer that shares its prompt with another.

    Args:
        hidden_BLD: The decoder's output.
        predictors_N: The position that predicts each token, counted over the B x L positions.
        targets_N: The tokens.
        head: The head of the model that the hidden states come from.

    Returns:
        N values of float32.
    """
    return head.log_probs(hidden_BLD.flatten(0, 1)[predictors_N], targets_N)


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
    return _weights(supervised_BL, loss_weights_BL).sum()


def _targets(
    labels_BL: torch.Tensor, loss_weights_BL: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    # The one place that shifts: what position t has to predict, and whether it carries loss.
    targets_BL = labels_BL[:, 1:]
    supervised_BL = targets_BL != IGNORE_INDEX
    if loss_weights_BL is not None:
        supervised_BL = supervised_BL & (loss_weights_BL[:, 1:] != 0)
    return targets_BL, supervised_BL


def _weights(supervised_BL: torch.Tensor, loss_weights_BL: torch.Tensor | None) -> torch.Tensor:
    # One weight for each supervised token, in the order of a boolean index.
    if loss_weights_BL is None:
        return torch.ones(int(supervised_BL.sum()), device=supervised_BL.device)
    return loss_weights_BL[:, 1:][supervised_BL].float()
