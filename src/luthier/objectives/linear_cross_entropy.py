"""Cross-entropy straight from hidden states: head and loss in one, as autograd sees them.

Comes in: hidden states of the rows that carry loss. Goes out: their losses with gradients. Which
rows carry loss is decided elsewhere (`causal_lm`), and what a model's head is, too (`head`).

The sum's gradients are formed in the forward pass, while a chunk's logits are at hand; the backward
pass only multiplies them. That takes three matrix products where recomputing takes four (two, not
three, where the head is frozen), and no memory that the plain way does without: the gradient of the
matrix exists from the end of the forward pass on, which is where the backward pass begins.
float16 is the exception: unscaled gradients would fall under its range, so they are formed in the
backward pass, where the loss scale is known. So are those of single rows, whose factors are not
known before.

Shape suffixes: N rows, D width of the hidden states, R rank, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from luthier.objectives.logit_chunks import Gradients, LogitRule, Product, Scores, score_rows

LowRank = tuple[torch.Tensor, torch.Tensor]
"""Inputs (N, R) and matrix (V, R) of a low-rank term that is added to the head's product."""


@dataclass(frozen=True, slots=True)
class RowLosses:
    """Loss of the rows.

    Attributes:
        total: Scalar with gradient: sum of weight x loss.
        losses: (N,) loss of each row, without gradient, not weighted.
        correct: (N,) whether the target was the most likely token.
    """

    total: torch.Tensor
    losses: torch.Tensor
    correct: torch.Tensor


def linear_cross_entropy(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor | None = None,
    *,
    bias_V: torch.Tensor | None = None,
    low_rank: LowRank | None = None,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk_rows: int | None = None,
    dft: bool = False,
) -> RowLosses:
    """Sum the weighted cross-entropy of rows, chunk by chunk of their logits.

    Under autocast the products are computed in its type, as the model's own head would; all else
    is in float32.

    Args:
        hidden_ND: Hidden states, as the head takes them.
        weight_VD: The head's matrix.
        targets_N: The right token of each row.
        weights_N: Weight of each row; None is 1 everywhere. It gets no gradient.
        bias_V: The head's bias.
        low_rank: A term added to the product of hidden states and weight.
        label_smoothing: Share of each target spread evenly over the vocabulary.
        softcap: Bounds the logits: softcap * tanh(logits / softcap).
        scale: Multiplies product and bias, before the bound.
        chunk_rows: Rows whose logits exist together; None to choose.
        dft: Multiply each row's loss by the probability of its target, which gets no gradient.

    Returns:
        The sum with gradient, and each row's part without.

    Source:
        `score_rows`; dft: arXiv 2508.05629.
    """
    rule = LogitRule(scale, softcap, label_smoothing, chunk_rows, dft)
    terms = [hidden_ND, weight_VD, *(low_rank or ())]
    if not _wants_gradient(bias_V, terms):
        scores = _score(rule, targets_N, bias_V, terms)
        total = _weighted_sum(scores.losses, weights_N)
        return RowLosses(total, scores.losses, scores.correct)
    if work_type(hidden_ND) == torch.float16:
        losses_N, correct_N = _LossOfRows.apply(rule, targets_N, bias_V, *terms)
        total = _weighted_sum(losses_N, weights_N)
        return RowLosses(total, losses_N.detach(), correct_N)
    return RowLosses(*_SumOfLosses.apply(rule, targets_N, weights_N, bias_V, *terms))


def linear_log_probs(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    bias_V: torch.Tensor | None = None,
    low_rank: LowRank | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk_rows: int | None = None,
) -> torch.Tensor:
    """Return each row's log-probability of its target, with gradient.

    What the gradient of a row will be multiplied by is not known in the forward pass, so the logits
    are computed again in the backward pass, chunk by chunk.

    Args:
        hidden_ND: Hidden states, as the head takes them.
        weight_VD: The head's matrix.
        targets_N: The token of each row.
        bias_V: The head's bias.
        low_rank: A term added to the product of hidden states and weight.
        softcap: Bounds the logits: softcap * tanh(logits / softcap).
        scale: Multiplies product and bias, before the bound.
        chunk_rows: Rows whose logits exist together; None to choose.

    Returns:
        N values of float32, at most 0.
    """
    rule = LogitRule(scale, softcap, 0.0, chunk_rows)
    terms = [hidden_ND, weight_VD, *(low_rank or ())]
    if not _wants_gradient(bias_V, terms):
        return -_score(rule, targets_N, bias_V, terms).losses
    return -_LossOfRows.apply(rule, targets_N, bias_V, *terms)[0]


def _wants_gradient(bias_V: torch.Tensor | None, terms: Sequence[torch.Tensor]) -> bool:
    tensors = [*terms, *([] if bias_V is None else [bias_V])]
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _weighted_sum(losses_N: torch.Tensor, weights_N: torch.Tensor | None) -> torch.Tensor:
    return losses_N.sum() if weights_N is None else (losses_N * weights_N).sum()


def work_type(hidden_ND: torch.Tensor) -> torch.dtype:
    """Return the type that a linear layer multiplies hidden states in: autocast's, or theirs."""
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device) and hidden_ND.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden_ND.dtype


def _score(
    rule: LogitRule,
    targets_N: torch.Tensor,
    bias_V: torch.Tensor | None,
    terms: Sequence[torch.Tensor],
    work: torch.dtype | None = None,
    factors_N: torch.Tensor | None = None,
    into: Gradients | None = None,
) -> Scores:
    # `terms` are inputs and matrix in turn. Each is cast once, not once for each chunk.
    work = work or work_type(terms[0])
    with torch.no_grad(), torch.autocast(targets_N.device.type, enabled=False):
        cast = [tensor.to(work) for tensor in terms]
        products = [Product(a, b) for a, b in zip(cast[::2], cast[1::2], strict=True)]
        bias_V = None if bias_V is None else bias_V.float() if work != torch.float64 else bias_V
        return score_rows(products, bias_V, targets_N, rule, factors_N, into)


def _room(
    wanted: Sequence[bool], bias_V: torch.Tensor | None, terms: Sequence[torch.Tensor]
) -> tuple[Gradients, list[torch.Tensor | None]]:
    # `wanted` and the list returned have the order of autograd's arguments: bias, then the terms.
    tensors = [bias_V, *terms]
    room = [
        torch.empty_like(t, dtype=torch.promote_types(t.dtype, torch.float32))
        if t is not None and want
        else None
        for t, want in zip(tensors, wanted, strict=True)
    ]
    return Gradients(inputs=room[1::2], matrices=room[2::2], bias=room[0]), room


class _SumOfLosses(torch.autograd.Function):
    """Sum of weight x loss, its gradients formed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        rule: LogitRule,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor | None,
        bias_V: torch.Tensor | None,
        *terms: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        into, ctx.gradients = _room(ctx.needs_input_grad[3:], bias_V, terms)
        ctx.types = [None if t is None else t.dtype for t in (bias_V, *terms)]
        scores = _score(rule, targets_N, bias_V, terms, factors_N=weights_N, into=into)
        ctx.mark_non_differentiable(scores.losses, scores.correct)
        return _weighted_sum(scores.losses, weights_N), scores.losses, scores.correct

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_total: torch.Tensor, *_: Any
    ) -> tuple[Any, ...]:
        if ctx.gradients is None:
            raise RuntimeError(
                "this loss's gradients were formed in the forward pass and are used up: "
                "run the forward pass again for a second backward pass"
            )
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [
            None if gradient is None else gradient.mul_(grad_total).to(dtype)
            for gradient, dtype in zip(gradients, ctx.types, strict=True)
        ]
        return None, None, None, *scaled


class _LossOfRows(torch.autograd.Function):
    """Loss of each row; the backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        rule: LogitRule,
        targets_N: torch.Tensor,
        bias_V: torch.Tensor | None,
        *terms: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.rule, ctx.work = rule, work_type(terms[0])
        ctx.save_for_backward(targets_N, bias_V, *terms)
        scores = _score(rule, targets_N, bias_V, terms)
        ctx.mark_non_differentiable(scores.correct)
        return scores.losses, scores.correct

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_losses_N: torch.Tensor, *_: Any
    ) -> tuple[Any, ...]:
        targets_N, bias_V, *terms = ctx.saved_tensors
        into, gradients = _room(ctx.needs_input_grad[2:], bias_V, terms)
        _score(ctx.rule, targets_N, bias_V, terms, ctx.work, grad_losses_N, into)
        narrowed = [
            None if gradient is None else gradient.to(tensor.dtype)
            for gradient, tensor in zip(gradients, [bias_V, *terms], strict=True)
        ]
        return None, None, *narrowed
