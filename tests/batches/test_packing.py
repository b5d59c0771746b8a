"""Packs: every row once and whole, as full as best-fit decreasing makes them, and repeatable."""

from __future__ import annotations

import random
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.batches.packing import (
    PackedBatches,
    build_order,
    count_packs,
    pack_window,
    packed_epoch,
)
from luthier.batches.sampling import epoch_batches, epoch_order
from luthier.batches.settings import BatchSettings

CAPACITY = 24
ROWS = st.lists(st.integers(1, CAPACITY), max_size=60)


def alpaca_like(num_rows: int) -> np.ndarray:
    """Lengths as alpaca_en_demo's: 200 tokens in the mean, 5 % over 440, a few of 700."""
    lengths = np.random.default_rng(3).lognormal(5.13, 0.58, num_rows)
    return np.clip(lengths, 20, 750).astype(np.int64)


def rooms_of_plain_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Return each pack's free room, by the textbook's loop: row by row, looking at every pack."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append(min(fitting, default=capacity) - length)
    return sorted(rooms)


@settings(deadline=None)
@given(lengths=ROWS, capacity=st.integers(CAPACITY, 80))
def test_no_row_is_lost_doubled_or_split_and_none_overflows(
    lengths: list[int], capacity: int
) -> None:
    packs = pack_window(lengths, capacity)
    assert sorted(chain(*packs)) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= capacity for pack in packs)
    assert all(packs)
    assert packs == pack_window(lengths, capacity)


@settings(deadline=None)
@given(lengths=ROWS, capacity=st.integers(CAPACITY, 80))
def test_packs_are_those_of_best_fit_decreasing(lengths: list[int], capacity: int) -> None:
    packs = pack_window(lengths, capacity)
    rooms = sorted(capacity - sum(lengths[row] for row in pack) for pack in packs)
    assert rooms == rooms_of_plain_best_fit(lengths, capacity)
    assert count_packs(np.asarray(lengths, dtype=np.int64), capacity) == len(packs)


def test_rows_go_where_the_least_room_is_left() -> None:
    # Longest first: 7, 6 | then 3 fills 7 to 10, and not the 6 with more room; 2 goes to the 6.
    assert pack_window([2, 6, 3, 7], 10) == [[0, 1], [2, 3]]


def test_rows_of_a_pack_keep_the_order_in_which_they_came() -> None:
    assert pack_window([1, 5, 2], 8) == [[0, 1, 2]]


def test_no_rows_make_no_packs() -> None:
    assert pack_window([], 8) == []
    assert PackedBatches([], 8, 4, 2, seed=0).num_batches(0) == 0


@pytest.mark.parametrize(("lengths", "found"), [([3, 9], "3 to 9"), ([0, 2], "0 to 2")])
def test_rows_that_fit_into_no_pack_are_the_callers_error(lengths: list[int], found: str) -> None:
    message = f"rows have {found} tokens; a pack takes 1 to 8"
    with pytest.raises(ValueError, match=message):
        pack_window(lengths, 8)
    with pytest.raises(ValueError, match=message):
        PackedBatches(lengths, 8, 4, 1, seed=0).num_batches(0)


def fill(lengths: np.ndarray, capacity: int, window: int) -> float:
    num_packs = sum(1 for _ in packed_epoch(lengths, capacity, window, seed=0, epoch=0))
    return lengths.sum() / (num_packs * capacity)


def test_packs_of_ordinary_conversations_are_nearly_full() -> None:
    lengths = alpaca_like(5000)
    assert 0.95 < fill(lengths, 2048, 128) < fill(lengths, 2048, 1024) < 1
    assert fill(lengths, 2048, 1024) > 0.98


def test_a_window_of_one_row_is_the_worst_case_and_packs_nothing() -> None:
    lengths = alpaca_like(50)
    packs = list(packed_epoch(lengths, 2048, 1, seed=0, epoch=0))
    assert packs == [[row] for row in epoch_order(50, 0, 0)]


@settings(deadline=None)
@given(lengths=ROWS, window=st.integers(1, 70), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_row_once_window_by_window(
    lengths: list[int], window: int, seed: int, epoch: int
) -> None:
    sizes = np.asarray(lengths, dtype=np.int64)
    rows = list(chain(*packed_epoch(sizes, CAPACITY, window, seed, epoch)))
    order = epoch_order(len(lengths), seed, epoch).tolist()
    assert len(rows) == len(order)
    for start in range(0, len(order), window):
        here = slice(start, start + window)
        assert sorted(rows[here]) == sorted(order[here])


def test_epochs_and_seeds_have_packs_of_their_own() -> None:
    lengths = alpaca_like(300)
    packs = [
        str(list(packed_epoch(lengths, 2048, 128, seed, epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(packs)) == 4


def test_the_longest_row_is_not_always_first() -> None:
    lengths = alpaca_like(1024)
    packs = list(packed_epoch(lengths, 2048, 1024, seed=0, epoch=0))
    longest_first = sum(lengths[pack[0]] == max(lengths[pack]) for pack in packs)
    assert 0 < longest_first < len(packs) / 2


def test_packs_of_few_long_rows_stand_anywhere_in_a_window() -> None:
    # By their first rows, which packs of many rows have earlier, the long rows would come last.
    lengths = np.asarray([90] * 100 + [10] * 900)
    packs = list(packed_epoch(lengths, 100, 1000, seed=0, epoch=0))
    long = [index for index, pack in enumerate(packs) if len(pack) == 2]
    assert len(long) == 100
    assert 0.4 < np.mean(long) / len(packs) < 0.6


def test_packs_of_each_window_and_epoch_are_shuffled_in_their_own_way() -> None:
    lengths = np.full(60, 8)
    shuffles: list[list[int]] = []
    for epoch in (0, 1):
        order = epoch_order(60, 0, epoch).tolist()
        rows = list(chain(*packed_epoch(lengths, 8, 20, seed=0, epoch=epoch)))
        places = [order.index(row) % 20 for row in rows]
        shuffles += [places[start : start + 20] for start in (0, 20, 40)]
    assert len({str(shuffle) for shuffle in shuffles}) == 6


@settings(deadline=None)
@given(
    lengths=ROWS,
    window=st.integers(1, 70),
    batch_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
    start=st.integers(0, 70),
)
def test_batches_from_any_point_are_the_rest_of_the_epoch(
    lengths: list[int], window: int, batch_size: int, epoch: int, start: int
) -> None:
    packed = PackedBatches(lengths, CAPACITY, window, batch_size, seed=5)
    batches = list(packed.batches(epoch, 0))
    assert packed.num_batches(epoch) == len(batches)
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    assert list(packed.batches(epoch, start)) == batches[start:]
    unread = PackedBatches(lengths, CAPACITY, window, batch_size, seed=5)
    assert list(unread.batches(epoch, start)) == batches[start:]


def test_a_batch_is_that_many_packs_one_after_another() -> None:
    lengths = [random.Random(row).randint(1, CAPACITY) for row in range(40)]
    packs = list(packed_epoch(np.asarray(lengths), CAPACITY, 16, seed=0, epoch=1))
    batches = list(PackedBatches(lengths, CAPACITY, 16, 3, seed=0).batches(1, 0))
    assert batches == [list(chain(*packs[i : i + 3])) for i in range(0, len(packs), 3)]


@pytest.mark.parametrize(("start", "num_windows"), [(43, 2), (45, 1), (50, 0), (0, 10)])
def test_only_windows_still_to_come_are_packed(
    start: int, num_windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming a long epoch must not pack it from its start."""
    packed = PackedBatches([5] * 100, 10, 10, 1, seed=0)
    assert packed.num_batches(0) == 50
    asked: list[int] = []

    def pack_and_note(lengths: list[int], capacity: int) -> list[list[int]]:
        asked.append(len(lengths))
        return pack_window(lengths, capacity)

    monkeypatch.setattr("luthier.batches.packing.pack_window", pack_and_note)
    assert len(list(packed.batches(0, start))) == 50 - start
    assert asked == [10] * num_windows


@pytest.mark.parametrize("packing", [False, "padding_free"])
def test_without_filling_the_order_is_that_of_shuffled_batches(packing: Any) -> None:
    names: Any = {"per_device_train_batch_size": 4, "group_by_length": True, "packing": packing}
    lengths = alpaca_like(30).tolist()
    order = build_order(lengths, BatchSettings(**names), 6, capacity=None)
    assert list(order.batches(1, 0)) == epoch_batches(lengths, 4, 6, 1, group_by_length=True)


def test_with_filling_the_order_is_that_of_packs() -> None:
    settings = BatchSettings(packing=True, packing_window=9, per_device_train_batch_size=3)
    lengths = [random.Random(row).randint(1, CAPACITY) for row in range(40)]
    order = build_order(lengths, settings, 6, CAPACITY)
    expected = PackedBatches(lengths, CAPACITY, 9, 3, 6).batches(1, 0)
    assert list(order.batches(1, 0)) == list(expected)


def test_packing_without_a_capacity_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match="packing needs the capacity of a packed row"):
        build_order([1, 2], BatchSettings(packing=True), 0, capacity=None)
