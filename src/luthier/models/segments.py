"""Attention over packed rows: each segment sees itself alone, and no T x T mask is built.

In: the queries, keys and values of one row of T tokens, and where its segments end. Out: the
attention's output. A batch that is not packed (padded rows, generation with a cache) gets what
transformers' own `sdpa` gives it, so one loaded model serves training, evaluation and generation.

transformers calls two functions of this file by the name `SEGMENTS`:

1. `segments_mask`, once a forward pass for each kind of layer, where `sdpa` would build a mask of
   T x T booleans. It reads from transformers' mask function where the segments end and hands that
   on in the mask's place: an int32 tensor of shape (1, 1, 1, 1 + S + 1), the window (or 0) first.
2. `segments_attention`, in each layer.

Shape suffixes: B rows, H heads, K heads of keys and values, T tokens of the row, L tokens of one
segment, D width of a head, S segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.nn.functional as F

from luthier.models.segment_kernels import LayerAttention, SharedPrefixes

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

SEGMENTS = "luthier_segments"
"""The name for `attn_implementation`; `register_segments` makes transformers know it."""


def register_segments() -> None:
    """Make `SEGMENTS` known to transformers, as an attention and as a mask. May be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(SEGMENTS, segments_attention)
    AttentionMaskInterface.register(SEGMENTS, segments_mask)


def packed_inputs(batch: Batch) -> dict[str, Any]:
    """Return the keyword arguments of `model.forward` for a packed batch.

    FlashAttention and `SEGMENTS` read the segments' ends. `sdpa` and `eager` don't: there the
    position ids alone keep documents apart, by a T x T mask, and only in classes that build it from
    them (gpt-oss doesn't). The caller adds `use_cache=False`: with a cache transformers doesn't
    look at the position ids, and would keep what no one reads.

    Args:
        batch: `input_ids` and `position_ids` (int64, both (1, T), the positions of each segment
            counted from 0) and `cu_seqlens` (int32, (S + 1,), from 0 to T).

    Raises:
        ValueError: The batch holds an attention mask or several rows, or `cu_seqlens` does not go
            from 0 to T in steps of at least 1.
    """
    num_rows, num_tokens = batch["input_ids"].shape
    if num_rows != 1 or "attention_mask" in batch:
        raise ValueError(
            f"a packed batch is one row without an attention mask, not {num_rows} rows with "
            f"{', '.join(batch)}"
        )
    ends = batch["cu_seqlens"].to(torch.int32)
    steps = ends.diff()
    # One transfer for all: on a GPU each read waits for everything queued before it.
    read = torch.stack([ends[0], ends[-1], steps.min(), steps.max()]).tolist()
    first, last, shortest, longest = map(int, read)
    if first != 0 or last != num_tokens or shortest < 1:
        raise ValueError(
            f"cu_seqlens must go from 0 to {num_tokens} in steps of at least 1: it goes from "
            f"{first} to {last}, its smallest step is {shortest}"
        )
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def segments_mask(
    *,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    local_size: int | None = None,
    **shape: Any,
) -> torch.Tensor | None:
    """Return a packed row's segment ends in the place of its mask, and for the rest sdpa's mask.

    Args:
        mask_function: Whether a query (third argument) may see a key (fourth): transformers'.
        attention_mask: Which tokens are no padding, (B, T).
        allow_is_causal_skip: False where plain causal attention is not enough, as in packed rows.
        use_vmap: The model has overlaid a pattern of its own.
        local_size: Width of the layer's window, or of its chunks.
        shape: `batch_size`, `q_length`, `kv_length` and what else transformers says of the mask.
    """
    from transformers.masking_utils import sdpa_mask

    may_be_packed = not allow_is_causal_skip and not use_vmap and attention_mask is None
    if may_be_packed and shape["batch_size"] == 1 and shape["q_length"] == shape["kv_length"] > 1:
        ends = _read_ends(mask_function, shape["q_length"], shape["device"])
        if ends is not None:
            # Some classes (Phi-MoE) tell the window to the mask alone. For chunks it is harmless:
            # no segment is longer than its chunk.
            return F.pad(ends, (1, 0), value=local_size or 0)[None, None, None]
    return sdpa_mask(
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        use_vmap=use_vmap,
        local_size=local_size,
        **shape,
    )


def _read_ends(
    mask_function: Callable[..., torch.Tensor], num_tokens: int, device: Any
) -> torch.Tensor | None:
    """Return where the segments of a causal mask end, (S + 1,), or None if there is only one.

    A segment starts where a token may not see the one before it. That costs T evaluations of the
    mask function, not T x T. The chunks of chunked attention (Llama 4) are found the same way.
    """
    tokens = torch.arange(num_tokens, device=device)
    zero = tokens[:1]
    sees_last = mask_function(zero, zero, tokens[1:], tokens[:-1])
    sees_next = mask_function(zero, zero, tokens[:-1], tokens[1:])
    starts = (~sees_last).nonzero().flatten() + 1
    if not len(starts) or bool(sees_next.any()):
        return None
    edge = tokens.new_tensor([num_tokens])
    return torch.cat([zero, starts, edge]).to(torch.int32)


def segments_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each segment of a packed row, and otherwise as transformers' `sdpa` does.

    Args:
        module: The attention layer.
        query: (B, H, T, D).
        key: (B, K, T, D); with a cache it may be longer.
        value: As `key`.
        attention_mask: What `segments_mask` returned.
        dropout: Share of attention weights set to 0; the model says 0 outside training.
        scaling: Factor of the scores. Default: 1 / sqrt(D).
        kwargs: What the model adds (`sliding_window`, `softcap`) and what its caller gave its
            forward pass (`packed_inputs`, `shared_prefixes.shared_prefix_inputs`).

    Returns:
        (B, T, H, D), and None: the weights are not kept.

    Raises:
        ValueError: The layer asks for what would be wrong in silence; see the message.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    ends = _segment_ends(attention_mask, kwargs)
    if "sliding_window" not in kwargs and _is_ends(attention_mask):
        kwargs["sliding_window"] = int(attention_mask[0, 0, 0, 0]) or None
    attention = LayerAttention.of(query, dropout, scaling, kwargs)
    if ends is not None:
        _refuse_unfit(module, query, key, kwargs)
        longest, prefixes = kwargs.get("max_length_q"), _shared_prefixes(ends, kwargs)
        return attention.segments(query, key, value, ends, longest, prefixes), None
    if attention.needs_scores:
        return attention.by_scores(query, key, value, attention_mask).transpose(1, 2), None
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return output, None


def _segment_ends(mask: torch.Tensor | None, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Return the segments' ends, (S + 1,), or None if the batch is not packed.

    The mask goes first: it knows of chunks too. Where transformers saw no packed row it makes no
    mask, or one of a window alone (a row of one segment; a class like gpt-oss, whose masks are made
    without the position ids). Any other mask says something that the ends don't.
    """
    if _is_ends(mask):
        return mask.flatten()[1:]
    ends: torch.Tensor | None = kwargs.get("cu_seq_lens_q")
    if ends is None or mask is None:
        return ends
    sees_last = mask.diagonal(-1, dim1=-2, dim2=-1)
    if mask.dtype == torch.bool and kwargs.get("sliding_window") and bool(sees_last.all()):
        return ends
    if len(ends) == 2:
        return None
    raise ValueError(
        "a packed batch was given an attention mask too: pass packed_inputs(batch), and "
        "use_cache=False"
    )


def _shared_prefixes(ends: torch.Tensor, kwargs: Mapping[str, Any]) -> SharedPrefixes | None:
    """Return which segments share a beginning, where the caller said so (`shared_prefixes`)."""
    if kwargs.get("key_tokens") is None:
        return None
    if len(ends) != len(kwargs["cu_seq_lens_k"]):
        raise ValueError(
            "a shared prompt can't be served with attention in chunks: compute the answers apart"
        )
    return SharedPrefixes(kwargs["cu_seq_lens_k"], kwargs["max_length_k"], kwargs["key_tokens"])


def _is_ends(mask: torch.Tensor | None) -> TypeGuard[torch.Tensor]:
    return mask is not None and mask.dtype == torch.int32


def _refuse_unfit(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, kwargs: Mapping[str, Any]
) -> None:
    asked = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if asked is None else asked
    found = {
        "attention that is not causal": not is_causal,
        "a bias of positions": kwargs.get("position_bias") is not None,
        f"{query.shape[0]} rows": query.shape[0] != 1,
        "a cache": query.shape[2] != key.shape[2],
    }
    for what, is_found in found.items():
        if is_found:
            raise ValueError(f"a packed row can't be served with {what}: turn packing off")
