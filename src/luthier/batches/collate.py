"""Rows of different length in, one padded batch out: the last mile before the model.

Works as a DataLoader's `collate_fn` and as the Hugging Face Trainer's `data_collator`. Labels are
aligned with the inputs here and in the rows; the shift by one happens once, in the loss. Batches
without padding are made in `flat.py`. Shape suffixes: B rows, L the longest row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from luthier.contracts.rows import IGNORE_INDEX

Collate = Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]

_OPTIONAL = ("loss_weights", "position_ids")


def causal_lm_collate(
    batch: Sequence[Mapping[str, Any]], pad_id: int, label_pad_id: int = IGNORE_INDEX
) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest of them.

    The attention mask comes from the rows' lengths, never from comparing ids with `pad_id`, so a
    pad token that is also the end token does no harm.

    Args:
        batch: Rows with `input_ids` and `labels`, and optionally `loss_weights` and
            `position_ids`, which all rows of a batch have or none. Lists or numpy arrays.
        pad_id: Fills `input_ids`.
        label_pad_id: Fills `labels`: cross-entropy leaves these positions out.

    Returns:
        `input_ids_BL`, `labels_BL` (int64), `attention_mask_BL` (int64, 1 where a token is), and
        where the rows have them `loss_weights_BL` (float32) and `position_ids_BL` (int64).

    Raises:
        ValueError: As `optional_fields`.
    """
    optional = optional_fields(batch)
    padded = {
        "input_ids": _pad([row["input_ids"] for row in batch], np.int64, pad_id),
        "labels": _pad([row["labels"] for row in batch], np.int64, label_pad_id),
        "attention_mask": _pad([np.ones(len(row["input_ids"])) for row in batch], np.int64, 0),
    }
    if "loss_weights" in optional:
        padded["loss_weights"] = _pad([row["loss_weights"] for row in batch], np.float32, 0.0)
    if "position_ids" in optional:
        padded["position_ids"] = _pad([row["position_ids"] for row in batch], np.int64, 0)
    return padded


def optional_fields(batch: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which of `loss_weights` and `position_ids` the rows of a batch have.

    Raises:
        ValueError: The batch is empty, a row's sequences differ in length, or some rows have a
            field that others lack (weights would be dropped without a word).
    """
    if not batch:
        raise ValueError("a batch needs at least one row")
    optional = [name for name in _OPTIONAL if name in batch[0]]
    for row in batch:
        if [name for name in _OPTIONAL if name in row] != optional:
            raise ValueError(f"all rows of a batch have {' and '.join(_OPTIONAL)}, or none has")
        for name in ("labels", *optional):
            if len(row[name]) != len(row["input_ids"]):
                raise ValueError(f"{name} and input_ids of a row must have the same length")
    return optional


@dataclass(frozen=True, slots=True)
class CausalLMCollator:
    """`causal_lm_collate` with its pad id, as an object that loader workers can be sent."""

    pad_id: int

    def __call__(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad one batch; see `causal_lm_collate`."""
        return causal_lm_collate(batch, self.pad_id)


def _pad(rows: Sequence[npt.ArrayLike], dtype: npt.DTypeLike, value: float) -> torch.Tensor:
    arrays = [np.asarray(row, dtype) for row in rows]
    padded_BL = np.full((len(arrays), max(map(len, arrays))), value, dtype)
    for row_L, array in zip(padded_BL, arrays, strict=True):
        row_L[: len(array)] = array
    return torch.from_numpy(padded_BL)
