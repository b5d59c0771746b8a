"""The order of rows."""

from __future__ import annotations

import random
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from luthier.batches.sampling import (
    EpochBatchSampler,
    ShuffledBatches,
    epoch_batches,
    epoch_order,
)

_RANDOM = random.Random(7)
LENGTHS = [_RANDOM.randint(1, 500) for _ in range(1003)]


@given(
    num_rows=st.integers(0, 300),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 5),
    group=st.booleans(),
)
def test_each_row_stands_in_one_batch(
    num_rows: int, batch_size: int, seed: int, epoch: int, group: bool
) -> None:
    lengths = LENGTHS[:num_rows]
    batches = epoch_batches(lengths, batch_size, seed, epoch, group_by_length=group)
    assert sorted(chain(*batches)) == list(range(num_rows))
    short = [len(batch) for batch in batches if len(batch) != batch_size]
    assert short == ([num_rows % batch_size] if num_rows % batch_size else [])
    assert batches == epoch_batches(lengths, batch_size, seed, epoch, group_by_length=group)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        str(epoch_batches(LENGTHS, 4, seed, epoch, group_by_length=group))
        for seed in (0, 1)
        for epoch in (0, 1)
        for group in (False, True)
    ]
    assert len(set(orders)) == len(orders)


def test_orders_never_change() -> None:
    """A run that was stopped under an earlier version goes on in the same order."""
    lengths = [5, 1, 4, 1, 5, 9, 2, 6]
    assert epoch_batches(lengths, 3, 7, 2) == [[6, 7, 5], [0, 4, 1], [2, 3]]
    grouped = epoch_batches(lengths, 2, 0, 0, group_by_length=True)
    assert grouped == [[5, 7], [3, 1], [0, 4], [2, 6]]


@given(num_rows=st.integers(0, 600), batch_size=st.integers(1, 5), epoch=st.integers(0, 3))
def test_groups_are_the_order_of_the_epoch_sorted_within_chunks(
    num_rows: int, batch_size: int, epoch: int
) -> None:
    lengths = LENGTHS[:num_rows]
    order = list(chain(*epoch_batches(lengths, batch_size, 3, epoch)))
    assert order == epoch_order(num_rows, 3, epoch).tolist()
    expected: list[list[int]] = []
    for start in range(0, num_rows, 50 * batch_size):
        part = sorted(order[start : start + 50 * batch_size], key=lambda row: -lengths[row])
        expected += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    grouped = epoch_batches(lengths, batch_size, 3, epoch, group_by_length=True)
    assert sorted(grouped) == sorted(expected)


def padding(batches: list[list[int]]) -> int:
    return sum(
        max(LENGTHS[row] for row in batch) * len(batch) - sum(LENGTHS[row] for row in batch)
        for batch in batches
    )


def test_group_by_length_pads_less_and_still_shuffles() -> None:
    plain = epoch_batches(LENGTHS, 8, 0, 0)
    grouped = epoch_batches(LENGTHS, 8, 0, 0, group_by_length=True)
    assert padding(grouped) < padding(plain) / 4
    longest = [max(LENGTHS[row] for row in batch) for batch in grouped]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_the_sampler_follows_set_epoch() -> None:
    sampler = EpochBatchSampler(LENGTHS[:10], 4, seed=3, group_by_length=False)
    assert len(sampler) == 3
    assert list(sampler) == list(sampler) == epoch_batches(LENGTHS[:10], 4, 3, 0)
    sampler.set_epoch(2)
    assert list(sampler) == epoch_batches(LENGTHS[:10], 4, 3, 2)
    grouped = EpochBatchSampler(LENGTHS, 4, seed=3, group_by_length=True)
    assert list(grouped) == epoch_batches(LENGTHS, 4, 3, 0, group_by_length=True)


@given(num_rows=st.integers(1, 40), batch_size=st.integers(1, 6), start=st.integers(0, 45))
def test_shuffled_batches_from_any_point(num_rows: int, batch_size: int, start: int) -> None:
    order = ShuffledBatches(LENGTHS[:num_rows], batch_size, seed=2, group_by_length=True)
    batches = epoch_batches(LENGTHS[:num_rows], batch_size, 2, 1, group_by_length=True)
    assert order.num_batches(1) == len(batches)
    assert order.batches(1, start) == batches[start:]
