"""A batch in, the same rows in smaller batches out: what a step does where memory is short.

Rows keep their order and none is cut. Shape suffixes: B rows, L the longest row of the batch,
T tokens of all segments, S segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

_OF_SEGMENTS = ("cu_seqlens", "num_rows")


def split_batch(batch: Batch, max_positions: int) -> list[dict[str, torch.Tensor]]:
    """Cut a batch, as `causal_lm_collate` or `flat_collate` made it, into as few parts as will do.

    Args:
        batch: Padded on the right, or flat. Tensors of other names are cut along with the tokens.
        max_positions: Positions that a part may have, its own padding included. A row, or a
            segment of a flat batch, that has more stands alone.

    Returns:
        The parts in order. Padded ones end with their own longest row. `num_rows` of a flat part
        counts its segments.

    Raises:
        ValueError: The shape of a tensor does not say how it belongs to rows and tokens.
    """
    if "cu_seqlens" in batch:
        lengths_S: list[int] = batch["cu_seqlens"].diff().tolist()
        runs = _runs(lengths_S, max_positions, padded=False)
        return [_cut_flat(batch, first, end) for first, end in runs]
    lengths_B: list[int] = batch["attention_mask"].sum(dim=1).tolist()
    runs = _runs(lengths_B, max_positions, padded=True)
    return [_cut_padded(batch, first, end, max(lengths_B[first:end])) for first, end in runs]


def _runs(lengths: Sequence[int], limit: int, *, padded: bool) -> Iterator[tuple[int, int]]:
    """Yield first and end of runs that each fill the limit as far as they can."""
    first, longest, total = 0, 0, 0
    for index, length in enumerate(lengths):
        longest, total = max(longest, length), total + length
        size = longest * (index + 1 - first) if padded else total
        if size > limit and index > first:
            yield first, index
            first, longest, total = index, length, length
    yield first, len(lengths)


def _cut_padded(batch: Batch, first: int, end: int, longest: int) -> dict[str, torch.Tensor]:
    shape_BL = batch["input_ids"].shape
    part: dict[str, torch.Tensor] = {}
    for name, tensor in batch.items():
        if tensor.shape[:2] == shape_BL:
            part[name] = _own(tensor[first:end, :longest], tensor)
        elif tensor.shape[:1] == shape_BL[:1]:
            part[name] = _own(tensor[first:end], tensor)
        else:
            raise _unknown(name, tensor)
    return part


def _cut_flat(batch: Batch, first: int, end: int) -> dict[str, torch.Tensor]:
    ends = batch["cu_seqlens"]
    start_T, end_T = int(ends[first]), int(ends[end])
    part: dict[str, torch.Tensor] = {}
    for name, tensor in batch.items():
        if name in _OF_SEGMENTS:
            continue
        if tensor.shape[:2] != batch["input_ids"].shape:
            raise _unknown(name, tensor)
        part[name] = _own(tensor[:, start_T:end_T], tensor)
    part["cu_seqlens"] = _own(ends[first : end + 1] - start_T, ends)
    part["num_rows"] = torch.tensor(end - first)
    return part


def _own(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    # A copy to a GPU runs beside the computation only from pinned memory without gaps.
    part = part.contiguous()
    return part.pin_memory() if whole.is_pinned() else part


def _unknown(name: str, tensor: torch.Tensor) -> ValueError:
    return ValueError(f"{name} of shape {tuple(tensor.shape)} can't be cut by rows and tokens")
