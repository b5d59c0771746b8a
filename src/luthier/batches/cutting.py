"""A batch in, the same rows in smaller batches out: what a step does where memory is short.

Rows keep their order and none is cut, nor are the two answers of a pair parted. Shape suffixes: B
rows, L the longest row of the batch, T tokens of all segments, S segments, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from luthier.contracts.counting import count_rows

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

_OF_SEGMENTS = ("cu_seqlens", "pairs", "num_rows")


def split_batch(batch: Batch, max_positions: int) -> list[dict[str, torch.Tensor]]:
    """Cut a batch, as the collators of this package made it, into as few parts as will do.

    Args:
        batch: Padded on the right, or flat. Tensors of other names are cut along with the tokens,
            or with the pairs.
        max_positions: Positions that a part may have, its own padding included. A row, a segment of
            a flat batch, or a pair that has more stands alone.

    Returns:
        The parts in order. Padded ones end with their own longest row. `num_rows` of a part counts
        its segments, or its pairs.

    Raises:
        ValueError: The shape of a tensor does not say how it belongs to rows and tokens.
    """
    if "cu_seqlens" in batch or "pairs" in batch:
        ends_S = _ends(batch)
        runs = _runs(ends_S.diff().tolist(), max_positions, padded=False)
        return [_cut_flat(batch, ends_S, first, end) for first, end in runs]
    lengths_B: list[int] = batch["attention_mask"].sum(dim=1).tolist()
    size = len(lengths_B) // count_rows(batch)  # the rows of a pair are two
    longest = [max(lengths_B[row : row + size]) for row in range(0, len(lengths_B), size)]
    runs = _runs(longest, max_positions // size, padded=True)
    return [_cut_padded(batch, slice(*run), max(longest[slice(*run)])) for run in runs]


def _ends(batch: Batch) -> torch.Tensor:
    """Return where the parts end that a flat batch can be cut into, from 0 on."""
    if "cu_seqlens" in batch:
        return batch["cu_seqlens"]
    return torch.nn.functional.pad(batch["pairs"][:, -1], (1, 0))


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


def _cut_padded(batch: Batch, run: slice, longest: int) -> dict[str, torch.Tensor]:
    shape_BL, num_rows = batch["input_ids"].shape, count_rows(batch)
    size = shape_BL[0] // num_rows
    rows = slice(run.start * size, run.stop * size)
    part: dict[str, torch.Tensor] = {}
    for name, tensor in batch.items():
        if name == "num_rows":
            part[name] = torch.tensor(run.stop - run.start)
        elif tensor.shape[:2] == shape_BL:
            part[name] = _own(tensor[rows, :longest], tensor)
        elif tensor.shape[:1] == (num_rows,):
            part[name] = _own(tensor[run], tensor)
        else:
            raise _unknown(name, tensor)
    return part


def _cut_flat(batch: Batch, ends_S: torch.Tensor, first: int, end: int) -> dict[str, torch.Tensor]:
    start_T, end_T = int(ends_S[first]), int(ends_S[end])
    part: dict[str, torch.Tensor] = {}
    for name, tensor in batch.items():
        if name in _OF_SEGMENTS:
            continue
        if tensor.shape[:2] == batch["input_ids"].shape:
            part[name] = _own(tensor[:, start_T:end_T], tensor)
        elif "pairs" in batch and tensor.shape[:1] == batch["pairs"].shape[:1]:
            part[name] = _own(tensor[first:end], tensor)
        else:
            raise _unknown(name, tensor)
    if "pairs" in batch:
        part["pairs"] = _own(batch["pairs"][first:end] - start_T, batch["pairs"])
    else:
        part["cu_seqlens"] = _own(ends_S[first : end + 1] - start_T, ends_S)
    part["num_rows"] = torch.tensor(end - first)
    return part


def _own(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    # A copy to a GPU runs beside the computation only from pinned memory without gaps.
    part = part.contiguous()
    return part.pin_memory() if whole.is_pinned() else part


def _unknown(name: str, tensor: torch.Tensor) -> ValueError:
    return ValueError(f"{name} of shape {tuple(tensor.shape)} can't be cut by rows and tokens")
