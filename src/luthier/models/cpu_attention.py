"""Causal attention of one segment on a CPU, as products of matrices.

SDPA's kernel for CPUs works in blocks that are too small for the 16-bit units and recomputes the
weights in the backward pass. Here a segment is cut into blocks of queries, each of which meets the
keys up to its own end: what is hidden is never computed. The query heads that share a key head go
into one product, and the weights are kept for the backward pass unless the segment is long
(benchmarks/segment_attention.py).

Shape suffixes: H heads, K heads of keys and values, G = H / K, L queries, S keys, E keys that a
block sees, Q queries of a block, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

WHOLE_TOKENS = 384
"""Segments up to this length are one block: half of its scores are hidden, but the products are
larger."""

BLOCK_TOKENS = 128
"""Queries of a block in longer segments: their scores stay in the cache."""

KEPT_TOKENS = 1024
"""Up to this length the weights are kept, L x L / 2 numbers a head; beyond they are recomputed."""


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend causally within one segment.

    Args:
        query: (1, H, L, D).
        key: (1, K, S, D), S from L up: the queries stand behind the first S - L keys and see them.
        value: As `key`; its width may differ.
        scale: Factor of the scores.

    Returns:
        (1, H, L, D), in the inputs' type; the softmax is computed in float32.
    """
    num_heads, num_queries, width = query.shape[1:]
    grouped_KGLD = query.reshape(key.shape[1], -1, num_queries, width)
    output: Any = _CausalAttention.apply(grouped_KGLD, key[0], value[0], scale)
    return output.view(1, num_heads, num_queries, value.shape[-1])


class _CausalAttention(torch.autograd.Function):
    """On (K, G, L, D), (K, S, D), (K, S, D); returns (K, G, L, D)."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        num_keys = key.shape[1]
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        kept: list[torch.Tensor] = []
        for start, end, seen in _blocks(query.shape[2], num_keys):
            weights_KQE = _block_weights(query, key[:, :seen], start, end, scale)
            block = torch.bmm(weights_KQE, value[:, :seen])
            output[:, :, start:end] = block.view_as(output[:, :, start:end])
            kept.append(weights_KQE)
        ctx.scale = scale
        ctx.save_for_backward(query, key, value, *(kept if num_keys <= KEPT_TOKENS else ()))
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable  # its type hides the signature
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        query, key, value, *kept = ctx.saved_tensors
        (grad_KGLD,) = grad_outputs
        exact = torch.promote_types(key.dtype, torch.float32)
        grad_query = torch.empty_like(query)
        grad_key = torch.zeros_like(key, dtype=exact)
        grad_value = torch.zeros_like(value, dtype=exact)
        blocks = _blocks(query.shape[2], key.shape[1])
        for number, (start, end, seen) in enumerate(blocks):
            keys, values = key[:, :seen], value[:, :seen]
            weights = kept[number] if kept else _block_weights(query, keys, start, end, ctx.scale)
            grad = grad_KGLD[:, :, start:end].flatten(1, 2)
            grad_weights = torch.bmm(grad, values.transpose(1, 2))
            scores: torch.Tensor = torch.ops.aten._softmax_backward_data(
                grad_weights, weights, -1, weights.dtype
            ).mul_(ctx.scale)
            grad_block = torch.bmm(scores, keys)
            grad_query[:, :, start:end] = grad_block.view_as(query[:, :, start:end])
            queries = query[:, :, start:end].flatten(1, 2)
            grad_key[:, :seen] += torch.bmm(scores.transpose(1, 2), queries)
            grad_value[:, :seen] += torch.bmm(weights.transpose(1, 2), grad)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None


def _blocks(num_queries: int, num_keys: int) -> Iterator[tuple[int, int, int]]:
    """Yield first and end of each block of queries, and how many keys the block sees."""
    size = num_queries if num_keys <= WHOLE_TOKENS else BLOCK_TOKENS
    for start in range(0, num_queries, size):
        end = min(start + size, num_queries)
        yield start, end, num_keys - num_queries + end


def _block_weights(
    query: torch.Tensor, key: torch.Tensor, start: int, end: int, scale: float
) -> torch.Tensor:
    """Return the weights of the queries from `start` to `end` over all these keys, (K, G x Q, E).

    The last key is that of the last query.
    """
    queries = (query[:, :, start:end] * scale).flatten(1, 2)
    scores = torch.bmm(queries, key.transpose(1, 2))
    size = end - start
    hidden = torch.full((size, size), float("-inf"), dtype=scores.dtype).triu_(1)
    scores.view(len(key), -1, size, key.shape[1])[..., -size:].add_(hidden)
    return scores.softmax(-1)
