"""Row lengths in, packs out: which whole rows together fill a row of a given capacity.

Best-fit decreasing: the longest row first, each into the pack where the least room is left. No
row is split, left out or put into two packs. Which rows are looked at together (a window) and the
order of the packs are pure functions of seed, epoch and lengths, as `docs/decisions/0004` has it.

Source: the worst case of best-fit decreasing is 11/9 of the fewest packs possible, Johnson et
al. 1974, https://doi.org/10.1137/0203025; packing without truncation, arXiv 2404.10830.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from luthier.batches.sampling import BatchOrder, ShuffledBatches, epoch_order
from luthier.batches.settings import BatchSettings
from luthier.core.seeds import derive_seed


def pack_window(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put rows into as few packs as best-fit decreasing finds.

    Args:
        lengths: Tokens of each row.
        capacity: Tokens that a pack may hold.

    Returns:
        The numbers of each pack's rows, in the order in which they came: where that order was
        shuffled, the longest row doesn't always come first.

    Raises:
        ValueError: A row has more tokens than the capacity, or none. Prepared rows were cut to
            `cutoff_len`, so it is the caller's error.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    longest_first = np.argsort(-sizes, kind="stable").tolist()
    packs: dict[int, list[list[int]]] = {}
    taken = 0
    for room, length, each, num_packs in _moves(sizes, capacity):
        for _ in range(num_packs):
            pack = [] if room == capacity else packs[room].pop()
            pack += longest_first[taken : taken + each]
            taken += each
            packs.setdefault(room - each * length, []).append(pack)
    return sorted(sorted(pack) for same_room in packs.values() for pack in same_room)


def count_packs(lengths: npt.NDArray[np.int64], capacity: int) -> int:
    """Return the number of packs that `pack_window` makes, about twice as quickly."""
    return sum(num_packs for room, *_, num_packs in _moves(lengths, capacity) if room == capacity)


def _moves(sizes: npt.NDArray[np.int64], capacity: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield best-fit decreasing as moves of rows of one length into packs of one free room.

    A row that fits twice into the tightest pack is followed there by the next of its length: no
    pack has come to be tighter. So rows of one length move together, into all packs of that room
    at once.

    Yields:
        The packs' room before the move (the capacity: they are new), the rows' length, how many
        rows go into each pack, and into how many packs.
    """
    if sizes.size and not 1 <= sizes.min() <= sizes.max() <= capacity:
        raise ValueError(
            f"rows have {sizes.min()} to {sizes.max()} tokens; a pack takes 1 to {capacity}"
        )
    rooms: list[int] = []  # ascending, each once
    num_with_room: dict[int, int] = {}
    different, counts = np.unique(sizes, return_counts=True)
    for length, count in zip(different[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            tightest = bisect_left(rooms, length)
            room = rooms[tightest] if tightest < len(rooms) else capacity
            each = min(count, room // length)
            num_packs = count // each
            if room != capacity:
                num_packs = min(num_packs, num_with_room[room])
                num_with_room[room] -= num_packs
                if not num_with_room[room]:
                    del rooms[tightest], num_with_room[room]
            yield room, length, each, num_packs
            count -= each * num_packs
            room -= each * length
            if room not in num_with_room:
                insort(rooms, room)
                num_with_room[room] = 0
            num_with_room[room] += num_packs


def packed_epoch(
    lengths: npt.NDArray[np.int64],
    capacity: int,
    window: int,
    seed: int,
    epoch: int,
    *,
    first_window: int = 0,
) -> Iterator[list[int]]:
    """Yield the packs of one epoch; every row stands in exactly one of them.

    The epoch's shuffled order is cut into windows, each window is packed when its first pack is
    asked for, and its packs are shuffled: without that, those of few long rows come last.

    Args:
        lengths: Tokens of each row.
        capacity: Tokens that a pack may hold.
        window: Rows packed together; the last window may have fewer.
        seed: The run's seed.
        epoch: Counts from 0; each epoch has its own packs.
        first_window: Start with this one; those before it are not packed.

    Yields:
        The row numbers of a pack.
    """
    order = epoch_order(len(lengths), seed, epoch)
    for number, start in enumerate(range(0, len(order), window)):
        if number < first_window:
            continue
        rows = order[start : start + window]
        packs = pack_window(lengths[rows].tolist(), capacity)
        random = np.random.default_rng(derive_seed(seed, "packs", epoch, number))
        for index in random.permutation(len(packs)):
            yield rows[packs[index]].tolist()


class PackedBatches:
    """Packs as a `BatchOrder`: so many packs a micro-batch, their rows one after another.

    Epochs may have different numbers of packs. Each epoch's are counted once, all of its windows
    together, so that going on in the middle of an epoch packs only the windows still to come.
    """

    def __init__(
        self, lengths: Sequence[int], capacity: int, window: int, batch_size: int, seed: int
    ) -> None:
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._capacity = capacity
        self._window = window
        self._batch_size = batch_size
        self._seed = seed
        self._ends: dict[int, npt.NDArray[np.int64]] = {}

    def num_batches(self, epoch: int) -> int:
        """Return how many micro-batches an epoch has; the last may hold fewer packs."""
        ends = self._window_ends(epoch)
        return -(-int(ends[-1]) // self._batch_size) if len(ends) else 0

    def batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        """Yield the row numbers of each micro-batch of an epoch, from number `start` on."""
        ends, num_before = self._window_ends(epoch), start * self._batch_size
        first_window = int(np.searchsorted(ends, num_before, side="right"))
        skipped = int(ends[first_window - 1]) if first_window else 0
        packs = packed_epoch(
            self._lengths,
            self._capacity,
            self._window,
            self._seed,
            epoch,
            first_window=first_window,
        )
        packs = islice(packs, num_before - skipped, None)
        while batch := list(islice(packs, self._batch_size)):
            yield [row for pack in batch for row in pack]

    def _window_ends(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return how many packs of an epoch are done after each of its windows."""
        if epoch not in self._ends:
            lengths = self._lengths[epoch_order(len(self._lengths), self._seed, epoch)]
            starts = range(0, len(lengths), self._window)
            counts = [count_packs(lengths[i : i + self._window], self._capacity) for i in starts]
            self._ends[epoch] = np.cumsum(counts, dtype=np.int64)
        return self._ends[epoch]


def build_order(
    lengths: Sequence[int], settings: BatchSettings, seed: int, capacity: int | None
) -> BatchOrder:
    """Return the order that the settings ask for.

    Args:
        lengths: Tokens of each row.
        settings: Batch size, and how rows are packed or grouped.
        seed: The run's seed.
        capacity: Tokens that a packed row may hold; None will do where `packing` is not true.

    Raises:
        ValueError: `packing: true` without a capacity.
    """
    batch_size = settings.rows_per_batch
    if settings.packing is not True:
        return ShuffledBatches(lengths, batch_size, seed, settings.group_by_length)
    if capacity is None:
        raise ValueError("packing needs the capacity of a packed row")
    return PackedBatches(lengths, capacity, settings.packing_window, batch_size, seed)
