"""Causal attention of one layer over one packed row, in the ways that devices and layers allow.

In: queries, keys and values of one row, where its segments end, which of them share a beginning,
and what the layer asks for (scale, window, cap, sinks, dropout). Out: the attention's output. Which
batches are packed is decided in `segments`.

Shape suffixes: B rows, H heads, K heads of keys and values, T tokens of the row, L tokens of one
segment, D width of a head, S segments, E keys of all segments.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from luthier.models.cpu_attention import causal_attention

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values."""

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """Which segments see the first tokens of another segment beside themselves.

    A segment with as many keys as tokens sees itself alone. One with n keys more sees the first n
    tokens of the last such segment before it, as if they stood right before it.

    Attributes:
        key_ends: (S + 1,) int32: where the keys of each segment end, laid end to end.
        longest: Keys of the segment that has most.
        tokens: (E,) int64: the token that each of these keys belongs to.
    """

    key_ends: torch.Tensor
    longest: int
    tokens: torch.Tensor


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """What a layer asks of its attention.

    Attributes:
        scale: Factor of the scores.
        dropout: Share of attention weights set to 0.
        window: How many tokens a token sees, itself included; None for all before it.
        softcap: Scores are pressed into +-softcap (Gemma 2, arXiv 2408.00118).
        sinks: A score for each head, (H,), that takes weight and gives nothing (gpt-oss, arXiv
            2309.17453).
    """

    scale: float
    dropout: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None

    @classmethod
    def of(
        cls,
        query: torch.Tensor,
        dropout: float,
        scaling: float | None,
        kwargs: Mapping[str, Any],
    ) -> LayerAttention:
        """Read the layer's wishes from what transformers hands to an attention function."""
        return cls(
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            dropout,
            kwargs.get("sliding_window"),
            kwargs.get("softcap"),
            kwargs.get("s_aux"),
        )

    @property
    def needs_scores(self) -> bool:
        """Whether the scores themselves are changed, which SDPA's kernels can't."""
        return self.softcap is not None or self.sinks is not None

    def segments(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        longest: int | None,
        prefixes: SharedPrefixes | None = None,
    ) -> torch.Tensor:
        """Attend within each segment of (1, H, T, D), and its prefix; returns (1, T, H, D)."""
        if self._fits_varlen(query, value):
            return self._varlen(query, key, value, ends, longest, prefixes)
        lengths: list[int] = ends.diff().tolist()
        if sum(lengths) != query.shape[2]:
            raise ValueError(f"segments of {sum(lengths)} tokens in a row of {query.shape[2]}")
        # split, not slices: the gradients of S slices are S tensors of the whole row.
        rows = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
        if prefixes is not None:
            rows = _with_prefixes(rows, lengths, prefixes.key_ends.diff().tolist())
        return torch.cat([self._segment(*row).transpose(1, 2) for row in rows], dim=1)

    def _segment(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend causally; the queries stand at the end of the keys."""
        num_queries, num_keys = query.shape[2], key.shape[2]
        queries, keys = range(num_keys - num_queries, num_keys), range(num_keys)
        if self.needs_scores:
            mask = _window_mask(queries, keys, self.window, query.device)
            return self.by_scores(query, key, value, mask)
        if self.window is not None and num_keys > self.window:
            return self._windowed(query, key, value, self.window)
        if query.device.type == "cpu" and self.dropout == 0:
            dtype = _result_dtype(query)
            return causal_attention(query.to(dtype), key.to(dtype), value.to(dtype), self.scale)
        # SDPA's own causal mask counts from the first key.
        is_whole = num_queries == num_keys
        mask = None if is_whole else _window_mask(queries, keys, None, query.device)
        return self._sdpa(query, key, value, mask)

    def _windowed(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int
    ) -> torch.Tensor:
        """Attend in blocks as wide as the window: each sees itself and the block before it.

        That is 2 x L x window scores instead of L x L.
        """
        num_keys = key.shape[2]
        before = num_keys - query.shape[2]
        outputs: list[torch.Tensor] = []
        for start in range(before, num_keys, window):
            end, first = min(start + window, num_keys), max(0, start - window)
            mask = _window_mask(range(start, end), range(first, end), window, query.device)
            queries = query[:, :, start - before : end - before]
            outputs.append(self._sdpa(queries, key[:, :, first:end], value[:, :, first:end], mask))
        return torch.cat(outputs, dim=2)

    def _sdpa(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )

    def by_scores(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend with every score in memory, so that a cap and sinks can change them.

        Args:
            query: (B, H, L, D).
            key: (B, K, L, D); with a static cache longer than the queries.
            value: As `key`.
            mask: True where a query may see a key. None means as in SDPA: one query sees all, more
                are causal, counted from the first key.
        """
        num_queries, groups = query.shape[2], query.shape[1] // key.shape[1]
        if mask is None and num_queries > 1:
            key, value = key[:, :, :num_queries], value[:, :, :num_queries]
            tokens = range(num_queries)
            mask = _window_mask(tokens, tokens, self.window, query.device)
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        scores = (query @ key.transpose(2, 3)) * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if mask is not None:
            # The lowest finite number, as in eager: padding that sees nothing must not be nan.
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        if self.sinks is not None:
            column = self.sinks.to(scores.dtype)[None, :, None, None]
            scores = torch.cat([scores, column.expand(*scores.shape[:3], 1)], dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        return F.dropout(weights[..., : key.shape[2]], self.dropout) @ value

    def _fits_varlen(self, query: torch.Tensor, value: torch.Tensor) -> bool:
        """Whether torch's variable-length kernel (FlashAttention 2, sm80 or newer) can be used."""
        width = query.shape[-1]
        return (
            query.is_cuda
            and _result_dtype(query) in _HALF
            and self.dropout == 0
            and not self.needs_scores
            and value.shape[-1] == width
            and width <= 256
            and width % 8 == 0
            and torch.cuda.get_device_capability(query.device) >= (8, 0)
            and _has_varlen()
        )

    def _varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        longest: int | None,
        prefixes: SharedPrefixes | None,
    ) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        longest = int(ends.diff().max()) if longest is None else longest
        query_THD, key_TKD, value_TKD = (
            x[0].transpose(0, 1).to(_result_dtype(query)).contiguous() for x in (query, key, value)
        )
        key_ends, longest_keys = ends, longest
        if prefixes is not None:
            key_ends, longest_keys = prefixes.key_ends, prefixes.longest
            key_TKD, value_TKD = (x.index_select(0, prefixes.tokens) for x in (key_TKD, value_TKD))
        # With fewer queries than keys the kernel, too, lets them stand at the end of the keys.
        # The kernel doesn't count the token itself among those to its left.
        left = -1 if self.window is None else self.window - 1
        output: Any = varlen_attn(
            query_THD,
            key_TKD,
            value_TKD,
            ends,
            key_ends,
            longest,
            longest_keys,
            scale=self.scale,
            window_size=(left, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output[None]


def _with_prefixes(
    rows: Iterable[Tensors], lengths: Sequence[int], key_lengths: Sequence[int]
) -> Iterator[Tensors]:
    """Put the shared keys and values before those of the segments that see them."""
    whole: tuple[torch.Tensor, ...] = ()
    for (query, key, value), length, num_keys in zip(rows, lengths, key_lengths, strict=True):
        if num_keys == length:
            whole = (key, value)
            yield query, key, value
        else:
            shared = [x[:, :, : num_keys - length] for x in whole]
            yield query, torch.cat([shared[0], key], 2), torch.cat([shared[1], value], 2)


def _window_mask(
    queries: Sequence[int], keys: Sequence[int], window: int | None, device: torch.device
) -> torch.Tensor:
    distance = (
        torch.arange(queries[0], queries[-1] + 1, device=device)[:, None]
        - torch.arange(keys[0], keys[-1] + 1, device=device)[None]
    )
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _result_dtype(query: torch.Tensor) -> torch.dtype:
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


@cache
def _has_varlen() -> bool:
    # torch 2.10 had the function without windows and grouped heads.
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)
