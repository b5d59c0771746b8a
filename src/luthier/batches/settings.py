"""Settings of the batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from luthier.contracts.settings import Settings


class BatchSettings(Settings):
    """How many rows are computed at once, and in which order."""

    per_device_train_batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = 1
    """Rows of one micro-batch on one device; with packing: true, filled rows of cutoff_len. auto:
    as many as fit the memory, measured before the first step, of a step of train_batch_size."""

    train_batch_size: int = Field(default=16, gt=0)
    """With per_device_train_batch_size: auto, rows of one optimiser step on one device (filled
    rows of cutoff_len with packing: true), over all of its micro-batches."""

    per_device_eval_batch_size: int = Field(default=8, gt=0)
    """Rows of one evaluation batch on one device; with packing, as many tokens as the longest
    row has, so many times."""

    gradient_accumulation_steps: int = Field(default=1, gt=0)
    """Micro-batches of one optimiser step; auto chooses them itself."""

    group_by_length: bool = False
    """Put rows of similar length into one batch: less padding, a little less shuffling."""

    packing: Literal["auto", False, True, "padding_free"] = "auto"
    """Compute no padding. padding_free: the rows of a batch are laid end to end; true: whole
    conversations (documents) fill rows of cutoff_len. None sees another. false pads to the longest
    row. auto: padding_free (true with stage: pt), but false with a model that can't be packed,
    trainer: transformers, group_by_length or flash_attn: eager."""

    packing_window: int = Field(default=1024, gt=0)
    """With packing: true, rows looked at together to fill rows of cutoff_len: more fill better,
    fewer keep more of the shuffling."""

    dataloader_num_workers: int = Field(default=0, ge=0)
    """Worker processes that build batches ahead."""

    @property
    def is_auto(self) -> bool:
        """Whether micro-batches are cut to what fits the memory."""
        return self.per_device_train_batch_size == "auto"

    @property
    def is_packed(self) -> bool:
        """Whether a batch is one row without padding. auto must be settled: the model has a say."""
        assert self.packing != "auto", "packing: auto is settled before batches are built"
        return bool(self.packing)

    @property
    def rows_per_batch(self) -> int:
        """Rows (or filled rows) that are collated together: with auto, those of a whole step."""
        size = self.per_device_train_batch_size
        return self.train_batch_size if size == "auto" else size
