"""Windows of micro-batches for the loop, from any point of any epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, islice, tee
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.batches.collate import Collate
from luthier.batches.loading import make_loader
from luthier.batches.packing import build_order
from luthier.batches.remainder import RemainingBatches, describe_order, rows_left
from luthier.batches.sampling import BatchOrder
from luthier.batches.settings import BatchSettings
from luthier.core.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader


class BatchStream:
    """Training batches, a window (one optimiser step) at a time; implements `BatchSource`.

    The state is a position, not a history: the order of an epoch is a pure function of the seed,
    so going on in the middle of an epoch reads no row that was already trained on. An epoch that
    was begun with other settings (another batch size, say) is finished with the rows it has left.
    """

    def __init__(
        self,
        rows: Any,
        lengths: Sequence[int],
        collate: Collate,
        settings: BatchSettings,
        seed: int,
        capacity: int | None = None,
        data: str = "",
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
            data: Tells these rows from others: numbers of rows mean something in one data set.

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
        self._lengths = lengths
        self._collate = collate
        self._settings = settings
        self._seed = seed
        self._capacity = capacity
        self._made_with = describe_order(settings, seed, capacity) | {"data": data}
        self._is_changed = False
        self._order = build_order(lengths, settings, seed, capacity)
        self._epoch = 0
        self._window = 0
        self._window_rows: list[int] = []
        # What the present epoch was begun with, and its rest in batches of today's settings.
        self._earlier: list[dict[str, Any]] = []
        self._rest: tuple[int, BatchOrder] | None = None
        self._num_left = len(lengths)

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

    def windows_left(self, epochs: float) -> int:
        """Return the optimiser steps from here to the end of so many epochs.

        Args:
            epochs: As for `num_windows`, which this is at the start of a run.
        """
        whole, part = divmod(Fraction(str(epochs)), 1)
        left = sum(self._windows_in(epoch) for epoch in range(self._epoch, whole))
        left -= self._window if self._epoch < whole else 0
        if part and self._epoch < whole:
            left += math.ceil(part * self._windows_in(whole))
        elif part and self._epoch == whole:
            before = 1 - Fraction(self._num_left, len(self._lengths))
            share = max(Fraction(0), part - before) / (1 - before) if before < 1 else Fraction(0)
            left += max(0, math.ceil(share * self._windows_in(whole)) - self._window)
        return left

    def epochs_done(self) -> float:
        """Return the position in epochs: 1.5 in the middle of the second."""
        num_windows = self._windows_in(self._epoch)
        if self._window == num_windows:
            return self._epoch + 1.0  # To the last bit: an epoch's end is seen by it.
        share = self._window / num_windows
        if self._rest is not None:
            left = self._num_left / len(self._lengths)
            share = 1 - left + left * share
        return self._epoch + share

    def windows(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """Yield windows for ever. The state counts a window as soon as it is handed out."""
        size = self._settings.gradient_accumulation_steps
        while True:
            remaining = self._order_in(self._epoch).batches(self._epoch, self._window * size)
            to_load, to_note = tee(remaining)
            loader = iter(make_loader(self._rows, to_load, self._collate, self._settings))
            while self._window < self._windows_in(self._epoch):
                window = [batch for _, batch in zip(range(size), loader, strict=False)]
                self._window_rows = list(chain(*islice(to_note, size)))
                self._window += 1
                yield window
            self._epoch, self._window = self._epoch + 1, 0
            self._begin_with([])

    def window_rows(self) -> list[int]:
        """Return the numbers of the rows of the window that was handed out last."""
        return self._window_rows

    def take_back(self) -> None:
        """Count the window that was handed out last as not handed out."""
        self._window -= 1

    @property
    def is_changed(self) -> bool:
        """Whether the position was reached with other settings or data than today's."""
        return self._is_changed

    def rows_left(self) -> int:
        """Return how many rows the present epoch had left when today's settings took it over."""
        return self._num_left

    def get_state(self) -> dict[str, Any]:
        """Return the position: the epoch, the windows of it that were handed out, and their kind.

        Returns:
            `order` is what the windows follow from; `earlier`, where the epoch was begun with other
            settings, what came before.
        """
        state = {"epoch": self._epoch, "window": self._window, "order": self._made_with}
        return state | ({"earlier": self._earlier} if self._earlier else {})

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position; takes effect with the next call of `windows`.

        If it was reached with other settings, the rest of its epoch holds the rows that are left;
        with other data, its epoch begins anew.
        """
        self._epoch, self._window = int(state["epoch"]), int(state["window"])
        earlier = list(state.get("earlier", ()))
        self._is_changed = state["order"] != self._made_with
        if self._is_changed and self._window:
            earlier.append({"order": state["order"], "windows": self._window})
            self._window = 0
        # Of other data, no row was seen yet.
        data = self._made_with["data"]
        self._begin_with([part for part in earlier if part["order"]["data"] == data])

    def _begin_with(self, earlier: list[dict[str, Any]]) -> None:
        self._earlier, self._rest, self._num_left = earlier, None, len(self._lengths)
        if earlier:
            rows = rows_left(self._lengths, self._epoch, earlier)
            lengths: Any = np.asarray(self._lengths)[rows]
            order = build_order(lengths.tolist(), self._settings, self._seed, self._capacity)
            self._rest, self._num_left = (self._epoch, RemainingBatches(rows, order)), len(rows)

    def _order_in(self, epoch: int) -> BatchOrder:
        return self._rest[1] if self._rest and self._rest[0] == epoch else self._order

    def _windows_in(self, epoch: int) -> int:
        num_batches = self._order_in(epoch).num_batches(epoch)
        return -(-num_batches // self._settings.gradient_accumulation_steps)


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
    """Build batches for evaluation, in the order of `evaluation_order`."""
    return make_loader(rows, evaluation_order(lengths, settings), collate, settings)


def evaluation_order(lengths: Sequence[int], settings: BatchSettings) -> list[list[int]]:
    """Return the row numbers of each evaluation batch: longest first, so that memory trouble shows.

    Padded batches hold `per_device_eval_batch_size` rows. With packing, a batch holds rows of up
    to as many tokens as the first padded one would have at most.
    """
    order = _longest_first(lengths)
    size = settings.per_device_eval_batch_size
    if settings.is_packed:
        return _cut_by_tokens(order, lengths, evaluation_token_budget(lengths, size))
    return [order[start : start + size] for start in range(0, len(order), size)]


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
