"""In which order rows are trained on: a pure function of seed, epoch and the rows' lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from luthier.core.seeds import derive_seed

_CHUNK_BATCHES = 50
"""Rows are sorted by length within chunks of this many batches: shuffled, yet little padding."""


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
    order = random.permutation(len(lengths)).tolist()
    if not group_by_length:
        return _cut(order, batch_size)
    chunk = batch_size * _CHUNK_BATCHES
    chunks = [sorted(part, key=lambda row: -lengths[row]) for part in _cut(order, chunk)]
    batches = [batch for part in chunks for batch in _cut(part, batch_size)]
    return [batches[index] for index in random.permutation(len(batches))]


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class EpochBatchSampler:
    """A DataLoader's `batch_sampler` over `epoch_batches`.

    Holds only an epoch number; `set_epoch` chooses the order, as with torch's own samplers.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, group_by_length: bool
    ) -> None:
        self._lengths = lengths
        self.batch_size = batch_size
        self._seed = seed
        self._group_by_length = group_by_length
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the chosen epoch."""
        yield from epoch_batches(
            self._lengths,
            self.batch_size,
            self._seed,
            self._epoch,
            group_by_length=self._group_by_length,
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self._lengths) // self.batch_size)
