"""Rows in, one row without padding out: every conversation a segment, none sees another.

In: prepared rows, in the order in which they are to stand. Out: tensors of shape (1, T), with the
position ids that restart at 0 in each segment and the segments' ends. There is no attention mask
here, and none may be added: transformers keeps segments apart by their position ids only where it
is given no mask, and a mask of ones lets each one see those before it. Shape suffixes: 1 row,
T tokens of all segments, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from luthier.batches.collate import CausalLMCollator, Collate, optional_fields
from luthier.batches.settings import BatchSettings
from luthier.contracts.rows import IGNORE_INDEX


def flat_collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Lay rows end to end.

    Args:
        batch: Rows as in `causal_lm_collate`. A row with `position_ids` of its own may hold
            several segments, each counted from 0.

    Returns:
        `input_ids_1T`, `labels_1T`, `position_ids_1T` (int64), where the rows have them
        `loss_weights_1T` (float32), `cu_seqlens` (int32, S + 1 numbers: 0 and each segment's
        end) and `num_rows` (int64 without dimension).

    Raises:
        ValueError: As `optional_fields`, a row has no tokens, or its `position_ids` don't start
            at 0, so that it would belong to the segment before it.
    """
    optional = optional_fields(batch)
    if not all(len(row["input_ids"]) for row in batch):
        raise ValueError("a row without tokens can't be a segment")
    labels_T = _join([row["labels"] for row in batch], np.int64)
    if "position_ids" in optional:
        if any(row["position_ids"][0] != 0 for row in batch):
            raise ValueError("the position_ids of a row must start at 0 to lay it behind another")
        positions_T = _join([row["position_ids"] for row in batch], np.int64)
    else:
        positions_T = _join([np.arange(len(row["input_ids"])) for row in batch], np.int64)
    starts_S = np.flatnonzero(positions_T == 0)
    # No position predicts the first token of a segment: the last one before it is a stranger's.
    assert (labels_T[starts_S] == IGNORE_INDEX).all(), "a segment's first label must be -100"
    flat = {
        "input_ids": _as_row(_join([row["input_ids"] for row in batch], np.int64)),
        "labels": _as_row(labels_T),
        "position_ids": _as_row(positions_T),
    }
    if "loss_weights" in optional:
        weights_T = _join([row["loss_weights"] for row in batch], np.float32)
        flat["loss_weights"] = _as_row(weights_T)
    flat["cu_seqlens"] = torch.from_numpy(np.append(starts_S, len(labels_T)).astype(np.int32))
    flat["num_rows"] = torch.tensor(len(batch))
    return flat


@dataclass(frozen=True, slots=True)
class FlatCollator:
    """`flat_collate` as an object that loader workers can be sent."""

    def __call__(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Lay one batch end to end; see `flat_collate`."""
        return flat_collate(batch)


def build_collator(settings: BatchSettings, pad_id: int) -> Collate:
    """Return what makes batches of rows, for training and evaluation alike.

    Args:
        settings: Whether rows are packed.
        pad_id: Fills `input_ids` where they are not.
    """
    return FlatCollator() if settings.is_packed else CausalLMCollator(pad_id)


def _join(parts: Sequence[npt.ArrayLike], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    # Always a copy: what Arrow hands out is read-only, and torch can't be told so.
    return np.concatenate([np.asarray(part) for part in parts], dtype=dtype, casting="unsafe")


def _as_row(values_T: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values_T)[None]
