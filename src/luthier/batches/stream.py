"""Windows of micro-batches for the loop, from any point of any epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from luthier.batches.sampling import epoch_batches
from luthier.batches.settings import BatchSettings
from luthier.core.errors import DataError

Collate = Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]


class BatchStream:
    """Training batches, a window (one optimiser step) at a time; implements `BatchSource`.

    The state is a position, not a history: the order of an epoch is a pure function of the seed,
    so going on in the middle of an epoch reads no row that was already trained on.
    """

    def __init__(
        self,
        rows: Any,
        lengths: Sequence[int],
        collate: Collate,
        settings: BatchSettings,
        seed: int,
    ) -> None:
        """Set the stream at the start of epoch 0.

        Args:
            rows: Random access to prepared rows (a datasets.Dataset or a list).
            lengths: Tokens of each row.
            collate: Makes a batch of rows.
            settings: Batch size, accumulation, workers.
            seed: The run's seed.

        Raises:
            DataError: There are no rows.
        """
        if not len(lengths):
            raise DataError(
                "there are no rows to train on",
                mend="Look at what was dropped and why: luthier inspect CONFIG",
            )
        self._rows = rows
        self._lengths = lengths
        self._collate = collate
        self._settings = settings
        self._seed = seed
        self._epoch = 0
        self._window = 0

    def windows_per_epoch(self) -> int:
        """Return the optimiser steps of one epoch, the last, shorter window included."""
        batches = -(-len(self._lengths) // self._settings.per_device_train_batch_size)
        return -(-batches // self._settings.gradient_accumulation_steps)

    def windows(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """Yield windows for ever. The state counts a window as soon as it is handed out."""
        while True:
            loader = iter(self._loader(self._remaining()))
            while self._window < self.windows_per_epoch():
                size = self._settings.gradient_accumulation_steps
                window = [batch for _, batch in zip(range(size), loader, strict=False)]
                self._window += 1
                yield window
            self._epoch, self._window = self._epoch + 1, 0

    def get_state(self) -> dict[str, Any]:
        """Return the position: the epoch and the windows of it that were handed out."""
        return {"epoch": self._epoch, "window": self._window}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position; takes effect with the next call of `windows`."""
        self._epoch, self._window = int(state["epoch"]), int(state["window"])

    def _remaining(self) -> list[list[int]]:
        settings = self._settings
        batches = epoch_batches(
            self._lengths,
            settings.per_device_train_batch_size,
            self._seed,
            self._epoch,
            group_by_length=settings.group_by_length,
        )
        return batches[self._window * settings.gradient_accumulation_steps :]

    def _loader(self, batches: list[list[int]]) -> DataLoader[Any]:
        return make_loader(self._rows, batches, self._collate, self._settings)


def make_loader(
    rows: Any, batch_sampler: Any, collate: Collate, settings: BatchSettings
) -> DataLoader[Any]:
    """Build torch's DataLoader over given batches of row numbers.

    Each iteration of a DataLoader draws a seed for its workers, by default from the global random
    generator: an evaluation, or going on from a checkpoint, would then change every later dropout
    mask. So the loader has a generator of its own.
    """
    return DataLoader(
        rows,
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=settings.dataloader_num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def evaluation_batches(
    rows: Any, lengths: Sequence[int], collate: Collate, settings: BatchSettings
) -> DataLoader[Any]:
    """Build batches for evaluation: longest rows first, so that memory trouble shows at once."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    size = settings.per_device_eval_batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return make_loader(rows, batches, collate, settings)
