"""Settings of the batches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.contracts.settings import Settings


class BatchSettings(Settings):
    """How many rows are computed at once, and in which order."""

    per_device_train_batch_size: int = Field(default=1, gt=0)
    """Rows of one micro-batch on one device."""

    per_device_eval_batch_size: int = Field(default=8, gt=0)
    """Rows of one evaluation batch on one device."""

    gradient_accumulation_steps: int = Field(default=1, gt=0)
    """Micro-batches of one optimiser step."""

    group_by_length: bool = False
    """Put rows of similar length into one batch: less padding, a little less shuffling."""

    packing: Literal[False] = False
    """Rows are padded to the longest of their batch; several rows in one is not offered yet."""

    dataloader_num_workers: int = Field(default=0, ge=0)
    """Worker processes that build batches ahead."""
