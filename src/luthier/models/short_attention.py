"""Causal attention of one short segment in bfloat16 on a CPU, with its weights kept for backward.

SDPA's kernel for CPUs recomputes the weights in the backward pass, in blocks that for short
segments are too small for the 16-bit units. With the weights in memory five products of whole
matrices are left, and the query heads that share a key head go into one product. Up to
`MAX_TOKENS` that is quicker (benchmarks/segment_attention.py); beyond, the L x L weights leave the
cache.

Shape suffixes: H heads, K heads of keys and values, G = H / K, L tokens, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch

MAX_TOKENS = 384


def short_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend causally within one segment.

    Args:
        query: (1, H, L, D).
        key: (1, K, L, D).
        value: As `key`; its width may differ.
        scale: Factor of the scores.

    Returns:
        (1, H, L, D), in the inputs' type; the softmax is computed in float32.
    """
    num_heads, num_tokens, width = query.shape[1:]
    grouped_KGLD = query.reshape(key.shape[1], -1, width)
    output: Any = _ShortAttention.apply(grouped_KGLD, key[0], value[0], scale)
    return output.view(1, num_heads, num_tokens, value.shape[-1])


class _ShortAttention(torch.autograd.Function):
    """On (K, G x L, D), (K, L, D), (K, L, D); returns (K, G x L, D)."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        num_tokens = key.shape[1]
        exact = torch.promote_types(query.dtype, torch.float32)
        hidden = torch.full((num_tokens, num_tokens), float("-inf"), dtype=exact).triu(1)
        scores = torch.bmm(query, key.transpose(1, 2)).to(exact)
        scores = scores.view(len(key), -1, num_tokens, num_tokens).mul_(scale).add_(hidden)
        weights = scores.softmax(-1).to(query.dtype).view(len(key), -1, num_tokens)
        output = torch.bmm(weights, value)
        ctx.scale, ctx.exact = scale, exact
        ctx.save_for_backward(query, key, value, weights, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable  # its type hides the signature
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        query, key, value, weights, output = ctx.saved_tensors
        (grad,) = grad_outputs
        # Softmax: dS = P * (dP - sum(P * dP)), and sum(P * dP) = sum(O * dO): FlashAttention 2,
        # arXiv 2307.08691, algorithm 2.
        rows = (grad.to(ctx.exact) * output.to(ctx.exact)).sum(-1, keepdim=True)
        scores = torch.bmm(grad, value.transpose(1, 2)).to(ctx.exact).sub_(rows)
        scores = scores.mul_(weights).mul_(ctx.scale).to(query.dtype)
        return (
            torch.bmm(scores, key),
            torch.bmm(scores.transpose(1, 2), query),
            torch.bmm(weights.transpose(1, 2), grad),
            None,
        )
