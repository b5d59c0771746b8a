"""A batch in, its real tokens and rows out, whether it is padded or laid end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


def count_tokens(batch: Batch) -> int:
    """Return the tokens of a batch, padding left out."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    return batch["input_ids"].numel()


def count_rows(batch: Batch) -> int:
    """Return how many prepared rows a batch holds."""
    if "num_rows" in batch:
        return int(batch["num_rows"])
    return len(batch["input_ids"])
