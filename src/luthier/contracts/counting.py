"""A batch in, its real tokens and rows out, whether it is padded or laid end to end.

Batches are counted before they go to the device: there, a number can only be read by waiting for
everything that was asked of the device before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier.contracts.rows import IGNORE_INDEX

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


def count_tokens(batch: Batch) -> int:
    """Return the tokens of a batch, padding left out."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    return batch["input_ids"].numel()


def count_positions(batch: Batch) -> int:
    """Return the positions that a model computes for a batch, padding included."""
    return batch["input_ids"].numel()


def count_supervised(batch: Batch) -> int:
    """Return the tokens of a batch that carry loss: no position predicts a row's first one."""
    supervised = batch["labels"][:, 1:] != IGNORE_INDEX
    if "loss_weights" in batch:
        supervised = supervised & (batch["loss_weights"][:, 1:] != 0)
    return int(supervised.sum())


def count_rows(batch: Batch) -> int:
    """Return how many prepared rows a batch holds."""
    if "num_rows" in batch:
        return int(batch["num_rows"])
    return len(batch["input_ids"])
