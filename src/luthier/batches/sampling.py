"""In which order rows are trained on: a pure function of seed, epoch and the rows' lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from luthier.core.seeds import derive_seed

_CHUNK_BATCHES = 50
"""Rows are sorted by length within chunks of this many batches: shuffled, yet little padding."""


class BatchOrder(Protocol):
    """Which rows stand in which micro-batch of which epoch."""

    def num_batches(self, epoch: int) -> int:
        """Return how many micro-batches an epoch has."""
        ...

    def batches(self, epoch: int, start: int) -> Iterable[list[int]]:
        """Return the row numbers of each micro-batch of an epoch, from number `start` on."""
        ...


def epoch_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, *, group_by_length: bool = False
) -> list[list[int]]:
    """Return the row numbers of each batch of one epoch; every row stands in exactly one batch.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch; the last batch may be smaller.
        seed: The run's seed.
        epoch: Counts from 0; each epoch has its own order.
        group_by_length: Put rows of similar length together.
    """
    random = np.random.default_rng(derive_seed(seed, "order", epoch))
    order = random.permutation(len(lengths))
    if not group_by_length:
        return _cut(order.tolist(), batch_size)
    negative_lengths = -np.asarray(lengths, dtype=np.int64)[order]
    chunk = batch_size * _CHUNK_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), chunk):
        part = np.argsort(negative_lengths[start : start + chunk], kind="stable")
        batches += _cut(order[start + part].tolist(), batch_size)
    return [batches[index] for index in random.permutation(len(batches))]


def epoch_order(num_rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the row numbers of an epoch in the order that `epoch_batches` cuts into batches."""
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(num_rows)


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class ShuffledBatches:
    """`epoch_batches` as a `BatchOrder`: so many rows a batch, whatever their length."""

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, group_by_length: bool
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._group_by_length = group_by_length

    def num_batches(self, epoch: int) -> int:
        """Return how many micro-batches an epoch has: the same in every epoch."""
        del epoch
        return -(-len(self._lengths) // self._batch_size)

    def batches(self, epoch: int, start: int) -> list[list[int]]:
        """Return the row numbers of each micro-batch of an epoch, from number `start` on."""
        batches = epoch_batches(
            self._lengths,
            self._batch_size,
            self._seed,
            epoch,
            group_by_length=self._group_by_length,
        )
        return batches[start:]


class EpochBatchSampler:
    """A DataLoader's `batch_sampler` over `epoch_batches`.

    Holds only an epoch number; `set_epoch` chooses the order, as with torch's own samplers.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, group_by_length: bool
    ) -> None:
        self.batch_size = batch_size
        self._order = ShuffledBatches(lengths, batch_size, seed, group_by_length)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the chosen epoch."""
        yield from self._order.batches(self._epoch, start=0)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._order.num_batches(self._epoch)
