"""Which rows validate: drawn by content, so that no copy of a row stands on both sides.

In: a key and a stratum or a group for each row. Out: two lists of row indexes. A row's place is
decided by the hash of its key and the seed, not by its position: the same rows in another order
split the same way. Rows with equal keys stay together. There are two ways to draw:

`split_rows` meets its quotas to the row, in each stratum too. A quota depends on all rows, so some
rows change sides when others are added.

`split_groups` keeps groups of near-duplicates on one side, and a row on its side when others are
added. The rows of a group follow one of them, its anchor: the row with the least hash. The group
validates where another hash of the anchor falls below `val_size`, and nothing else decides. So a
group that gains no row never changes sides. One that gains a row does only if the new row becomes
its anchor and falls on the other side: for a row that was alone, at a val_size of .05, in 1 of 21
cases. No rule can do without that: a new row that is like one row of each side has to draw one of
them over. The price is exactness: of n groups about `val_size * n` validate, give or take the root
of it, and so in each stratum (`stratum_shares` says how many did). A number of rows is taken as
the share that it is of all rows; as the corpus grows that share falls, and rows leave validation
for training, but none come the other way.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.core.errors import SettingsError
from luthier.core.hashing import hash_text, keyed_fraction

MAX_LENGTH_STRATA = 5


@dataclass(frozen=True, slots=True)
class Split:
    """Row indexes of both sides, each in the order of the rows."""

    train: list[int]
    val: list[int]


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows with the same key."""

    place: tuple[float, str]
    stratum: str
    rows: list[int]


def split_rows(
    keys: Sequence[str], strata: Sequence[str | int], val_size: float, seed: int
) -> Split:
    """Draw validation rows, in each stratum as many as its share of all rows asks for.

    The total is met exactly where the rows are distinct. Groups of equal rows are taken whole
    where they fit, so the total then falls short by less than the smallest group that is left.
    Strata too small for a row of their own share by largest remainder.

    Args:
        keys: What makes rows the same, one a row.
        strata: What both sides should have alike, one a row; of a group, the least value counts.
        val_size: A share below 1, or a number of rows from 1 up; 0 leaves all rows to training.
        seed: Another seed draws other rows.

    Returns:
        The two sides. Neither is empty, unless `val_size` is 0.

    Raises:
        SettingsError: There are too few rows, or too few different ones, for two sides.
    """
    num_rows = len(keys)
    assert len(strata) == num_rows, "one stratum a row"
    if val_size == 0:
        return Split(list(range(num_rows)), [])
    target = _target(num_rows, val_size)
    groups = _groups(keys, strata, seed)
    if len(groups) < 2:
        raise SettingsError(
            f"val_size: all {num_rows} rows are the same, so validation would repeat training",
            mend="Give a val_file, or leave val_size out.",
        )
    chosen = _choose(groups, target)
    # Every group is larger than the target: the smallest one comes nearest to it.
    chosen = chosen or [min(groups, key=lambda group: (len(group.rows), group.place))]
    val = sorted(row for group in chosen for row in group.rows)
    on_val_side = set(val)
    return Split([row for row in range(num_rows) if row not in on_val_side], val)


def split_groups(
    keys: Sequence[str], groups: Sequence[int | str], val_size: float, seed: int
) -> Split:
    """Draw whole groups of rows, so that a row keeps its side when other rows are added.

    See the head of this file for what that means when a group gains rows, and what it costs.

    Args:
        keys: The content of each row; equal rows need equal keys.
        groups: Which rows belong together, by any label, one a row.
        val_size: A share below 1, or a number of rows from 1 up; 0 leaves all rows to training.
        seed: Another seed draws other rows.

    Returns:
        The two sides. Neither is empty, unless `val_size` is 0: in a corpus so small that no group
        is drawn, or every one, the one nearest to the border is moved over it.

    Raises:
        SettingsError: There are too few rows, or too few groups, for two sides.
    """
    assert len(groups) == len(keys), "one group a row"
    if val_size == 0:
        return Split(list(range(len(keys))), [])
    target = _target(len(keys), val_size)
    share = target / len(keys) if val_size >= 1 else val_size
    fractions = _group_fractions(keys, groups, seed)
    # Equal fractions are of equal rows.
    ordered = sorted(set(fractions.values()))
    if len(ordered) < 2:
        raise SettingsError(
            f"val_size: all {len(keys)} rows are relatives of each other, so validation would "
            "repeat training",
            mend="Give a val_file, or leave val_size out.",
        )
    border = min(max(share, math.nextafter(ordered[0], 1)), ordered[-1])
    is_val = [fractions[group] < border for group in groups]
    return Split(
        [row for row in range(len(keys)) if not is_val[row]],
        [row for row in range(len(keys)) if is_val[row]],
    )


def stratum_shares(split: Split, strata: Sequence[str | int]) -> dict[str, float]:
    """Return the share of each stratum's rows that validate, for the account of a split.

    Args:
        split: Two sides.
        strata: One a row.
    """
    sizes = Counter(map(str, strata))
    drawn = Counter(str(strata[row]) for row in split.val)
    return {name: drawn[name] / size for name, size in sorted(sizes.items())}


def length_strata(lengths: Sequence[int]) -> list[int]:
    """Put rows into up to five buckets of about equal size by their length.

    Args:
        lengths: Length of each row in tokens.

    Returns:
        The bucket of each row, from 0 for the shortest. Rows of equal length share a bucket.
    """
    if not lengths:
        return []
    ordered = sorted(lengths)
    cuts = sorted(
        {
            ordered[math.ceil(len(ordered) * part / MAX_LENGTH_STRATA) - 1]
            for part in range(1, MAX_LENGTH_STRATA)
        }
    )
    return [bisect_left(cuts, length) for length in lengths]


def sample_rows(keys: Sequence[str], max_samples: int, seed: int) -> list[int]:
    """Draw rows by content; the same rows are drawn whatever order they come in.

    Args:
        keys: What makes rows the same, one a row.
        max_samples: Rows to draw; all where there are no more.
        seed: Another seed draws other rows.

    Returns:
        Row indexes, in the order of the rows.
    """
    if len(keys) <= max_samples:
        return list(range(len(keys)))
    fractions = {key: keyed_fraction(key, seed) for key in set(keys)}
    ranked = sorted(range(len(keys)), key=lambda row: (fractions[keys[row]], keys[row], row))
    return sorted(ranked[:max_samples])


def _target(num_rows: int, val_size: float) -> int:
    """Return how many rows to draw: at least one, and not all."""
    if val_size >= num_rows or num_rows < 2:
        raise SettingsError(
            f"val_size is {val_size:g}, and there are {num_rows} rows in all",
            mend="Lower val_size so that rows are left to train on, or give a val_file.",
        )
    if val_size >= 1:
        return int(val_size)
    # Half a row counts as one: round() would go to the even number.
    return min(max(math.floor(num_rows * val_size + 0.5), 1), num_rows - 1)


def _groups(keys: Sequence[str], strata: Sequence[str | int], seed: int) -> list[_Group]:
    """Return the rows with equal keys, in the order in which they are drawn."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        members[key].append(row)
    groups = [
        _Group((keyed_fraction(key, seed), key), min(str(strata[row]) for row in rows), rows)
        for key, rows in members.items()
    ]
    return sorted(groups, key=lambda group: group.place)


def _group_fractions(
    keys: Sequence[str], groups: Sequence[int | str], seed: int
) -> dict[int | str, float]:
    """Return for each group the number that decides its side: that of its anchor."""
    anchors: dict[int | str, str] = {}
    for key, group in zip(keys, groups, strict=True):
        # Not the hash that decides the side: the least of several would nearly always validate.
        rank = hash_text(f"anchor\0{seed}\0{key}")
        anchors[group] = min(anchors.get(group, rank), rank)
    return {group: keyed_fraction(rank, seed) for group, rank in anchors.items()}


def _quotas(groups: Sequence[_Group], target: int) -> dict[str, int]:
    """Divide the target among the strata by size, what is left over by largest remainder."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group.stratum] += len(group.rows)
    num_rows = sum(sizes.values())
    # In whole numbers, for a remainder that depends on rounding would depend on the machine.
    quotas = {name: target * size // num_rows for name, size in sizes.items()}
    left = target - sum(quotas.values())
    by_remainder = sorted(sizes, key=lambda name: (-(target * sizes[name] % num_rows), name))
    for name in by_remainder[:left]:
        quotas[name] += 1
    return quotas


def _choose(groups: Sequence[_Group], target: int) -> list[_Group]:
    """Take groups in drawing order: first by stratum, then wherever what is missing is found."""
    room = _quotas(groups, target)
    chosen: list[_Group] = []
    passed: list[_Group] = []
    for group in groups:
        if len(group.rows) <= room[group.stratum]:
            room[group.stratum] -= len(group.rows)
            chosen.append(group)
        else:
            passed.append(group)
    missing = sum(room.values())
    for group in passed:
        if len(group.rows) <= missing:
            missing -= len(group.rows)
            chosen.append(group)
    return chosen
