"""Windows of micro-batches for the loop, from any point of any epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch.utils.data import DataLoader

from luthier.batches.collate import Collate
from luthier.batches.packing import build_order
from luthier.batches.reading import open_rows
from luthier.batches.settings import BatchSettings
from luthier.core.errors import DataError


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
        capacity: int | None = None,
    ) -> None:
        """Set the stream at the start of epoch 0.

        Args:
            rows: Random access to prepared rows (a datasets.Dataset or a list).
            lengths: Tokens of each row.
            collate: Makes a batch of rows; `build_collator` makes the one that the settings ask.
            settings: Batch size, accumulation, packing, workers.
            seed: The run's seed.
            capacity: Tokens that a packed row may hold (`cutoff_len`); only `packing: true`
                needs it.

        Raises:
            DataError: There are no rows.
            ValueError: As `build_order`.
        """
        if not len(lengths):
            raise DataError(
                "there are no rows to train on",
                mend="Look at what was dropped and why: luthier inspect CONFIG",
            )
        self._rows = rows
        self._collate = collate
        self._settings = settings
        self._order = build_order(lengths, settings, seed, capacity)
        self._epoch = 0
        self._window = 0

    def windows_per_epoch(self) -> int:
        """Return the optimiser steps of epoch 0, the last, shorter window included.

        With `packing: true` other epochs may have a few more or less: see `num_windows`.
        """
        return self._windows_in(0)

    def num_windows(self, epochs: float) -> int:
        """Return the optimiser steps of so many epochs, each with as many as it has.

        Args:
            epochs: Counted as it is written: 1.1 epochs of 10 steps are 11 steps, where the
                product of floats would be a little more, and end as 12.

        Returns:
            At least 1. A part of an epoch that ends inside of a window takes that window.
        """
        whole, part = divmod(Fraction(str(epochs)), 1)
        num_windows = sum(self._windows_in(epoch) for epoch in range(whole))
        if part:
            num_windows += math.ceil(part * self._windows_in(whole))
        return max(1, num_windows)

    def epochs_done(self) -> float:
        """Return the position in epochs: 1.5 in the middle of the second."""
        return self._epoch + self._window / self._windows_in(self._epoch)

    def windows(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """Yield windows for ever. The state counts a window as soon as it is handed out."""
        size = self._settings.gradient_accumulation_steps
        while True:
            remaining = self._order.batches(self._epoch, self._window * size)
            loader = iter(make_loader(self._rows, remaining, self._collate, self._settings))
            while self._window < self._windows_in(self._epoch):
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

    def _windows_in(self, epoch: int) -> int:
        num_batches = self._order.num_batches(epoch)
        return -(-num_batches // self._settings.gradient_accumulation_steps)


def make_loader(
    rows: Any, batch_sampler: Iterable[list[int]], collate: Collate, settings: BatchSettings
) -> DataLoader[Any]:
    """Build torch's DataLoader over given batches of row numbers.

    Each iteration of a DataLoader draws a seed for its workers, by default from the global random
    generator: an evaluation, or going on from a checkpoint, would then change every later dropout
    mask. So the loader has a generator of its own.
    """
    sampler: Any = batch_sampler  # torch asks for a Sampler, and needs no more than an iterable.
    return DataLoader(
        open_rows(rows),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=settings.dataloader_num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def longest_batch(
    rows: Any,
    lengths: Sequence[int],
    collate: Collate,
    settings: BatchSettings,
    capacity: int | None = None,
) -> dict[str, torch.Tensor]:
    """Build the training batch that takes the most memory: the longest rows, longest first.

    Args:
        rows: As `BatchStream` takes them.
        lengths: Tokens of each row.
        collate: Makes a batch of rows.
        settings: Rows of a batch.
        capacity: Tokens that a packed row may hold; only `packing: true` needs it.
    """
    order = _longest_first(lengths)
    chosen = order[: settings.rows_per_batch]
    if settings.packing is True and capacity is not None:
        (chosen, *_) = _cut_by_tokens(order, lengths, capacity * settings.rows_per_batch)
    batch: dict[str, torch.Tensor]
    (batch,) = make_loader(rows, [chosen], collate, settings.model_copy(update=_IN_PROCESS))
    return batch


_IN_PROCESS = {"dataloader_num_workers": 0}


def evaluation_batches(
    rows: Any, lengths: Sequence[int], collate: Collate, settings: BatchSettings
) -> DataLoader[Any]:
    """Build batches for evaluation: longest rows first, so that memory trouble shows at once.

    Padded batches hold `per_device_eval_batch_size` rows. With packing, a batch holds rows of up
    to as many tokens as the first padded one would have at most.
    """
    order = _longest_first(lengths)
    size = settings.per_device_eval_batch_size
    if settings.packing:
        batches = _cut_by_tokens(order, lengths, evaluation_token_budget(lengths, size))
    else:
        batches = [order[start : start + size] for start in range(0, len(order), size)]
    return make_loader(rows, batches, collate, settings)


def evaluation_token_budget(lengths: Sequence[int], batch_size: int) -> int:
    """Return the tokens of a batch without padding: `batch_size` times those of the longest row."""
    return batch_size * max(lengths, default=0)


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


def _cut_by_tokens(order: list[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    room = 0
    for row in order:
        if not batches or lengths[row] > room:
            batches.append([])
            room = budget
        batches[-1].append(row)
        room -= lengths[row]
    return batches
