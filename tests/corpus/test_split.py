from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import SettingsError
from luthier.corpus.split import (
    Split,
    length_strata,
    sample_rows,
    split_groups,
    split_rows,
    stratum_shares,
)

_ROWS = st.lists(st.tuples(st.integers(0, 30).map(str), st.sampled_from("abc")), min_size=2)


def _unzip(rows: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [key for key, _ in rows], [stratum for _, stratum in rows]


@given(_ROWS, st.floats(0.01, 0.99), st.integers(0, 9))
def test_sides_are_whole_apart_and_never_empty(rows, val_size, seed):
    keys, strata = _unzip(rows)
    if len(set(keys)) < 2:
        with pytest.raises(SettingsError, match="rows are the same"):
            split_rows(keys, strata, val_size, seed)
        return
    split = split_rows(keys, strata, val_size, seed)
    assert sorted(split.train + split.val) == list(range(len(rows)))
    assert split.train == sorted(split.train)
    assert split.val == sorted(split.val)
    assert split.train
    assert split.val
    assert not {keys[row] for row in split.train} & {keys[row] for row in split.val}


@given(_ROWS, st.floats(0.01, 0.99))
def test_total_is_right_to_within_the_smallest_group_left(rows, val_size):
    keys, strata = _unzip(rows)
    sizes = Counter(keys)
    if len(sizes) < 2:
        return
    target = min(max(int(len(rows) * val_size + 0.5), 1), len(rows) - 1)
    split = split_rows(keys, strata, val_size, 0)
    left = min(sizes[keys[row]] for row in split.train)
    if len(split.val) > target:  # every group was larger than the target
        assert len(split.val) == min(sizes.values())
    else:
        assert target - len(split.val) < left


@given(_ROWS, st.randoms(use_true_random=False), st.integers(1, 20))
def test_order_of_rows_does_not_matter(rows, rng: random.Random, num_val: int):
    shuffled = rng.sample(rows, len(rows))
    if len({key for key, _ in rows}) < 2 or num_val >= len(rows):
        return
    for val_size in (num_val, 0.3):
        first = split_rows(*_unzip(rows), val_size, 5)
        second = split_rows(*_unzip(shuffled), val_size, 5)
        assert {rows[row][0] for row in first.val} == {shuffled[row][0] for row in second.val}


def test_distinct_rows_are_met_exactly_and_in_each_stratum():
    keys = [f"row {row}" for row in range(1000)]
    strata = ["big" if row < 700 else "mid" if row < 970 else "small" for row in range(1000)]
    for val_size, total in ((0.1, 100), (0.02, 20), (100, 100), (0.0005, 1), (999, 999)):
        split = split_rows(keys, strata, val_size, 42)
        assert len(split.val) == total
    split = split_rows(keys, strata, 0.1, 42)
    assert Counter(strata[row] for row in split.val) == {"big": 70, "mid": 27, "small": 3}


def test_half_a_row_counts_as_one():
    keys = [str(row) for row in range(25)]
    assert len(split_rows(keys, [0] * 25, 0.1, 0).val) == 3  # 2.5; round() says 2


def test_tiny_strata_share_by_largest_remainder():
    keys = [str(row) for row in range(20)]
    split = split_rows(keys, keys, 0.25, 0)  # each row a stratum of its own
    assert len(split.val) == 5


def test_seed_draws_other_rows_and_a_draw_is_even():
    keys = [str(row) for row in range(2000)]
    strata = [0] * 2000
    first, second = (split_rows(keys, strata, 0.5, seed).val for seed in (1, 2))
    assert split_rows(keys, strata, 0.5, 1).val == first
    assert 400 < len(set(first) & set(second)) < 600
    assert 420 < sum(row < 1000 for row in first) < 580


def test_large_group_of_copies_does_not_swamp_the_validation_rows():
    keys = ["copy"] * 90 + [str(row) for row in range(10)]
    for seed in range(20):
        assert len(split_rows(keys, [0] * 100, 0.1, seed).val) == 10
    # Where there is nothing but large groups, the smallest one is taken.
    assert len(split_rows(["a"] * 60 + ["b"] * 40, [0] * 100, 0.1, 0).val) == 40


def test_copies_in_two_strata_stay_together_wherever_they_stand():
    keys = ["same", "same", *map(str, range(18))]
    strata = ["a", "b"] * 10
    for seed in range(10):
        split = split_rows(keys, strata, 0.5, seed)
        assert ({0, 1} <= set(split.val)) or ({0, 1} <= set(split.train))


def test_no_validation_asked_for():
    assert split_rows(["a", "b"], [0, 0], 0.0, 1) == Split([0, 1], [])
    assert split_rows([], [], 0.0, 1) == Split([], [])


@pytest.mark.parametrize(("num_rows", "val_size"), [(3, 3), (3, 5), (1, 0.5), (0, 0.5), (1, 1)])
def test_too_few_rows(num_rows: int, val_size: float):
    keys = [str(row) for row in range(num_rows)]
    with pytest.raises(
        SettingsError, match=rf"val_size is .*, and there are {num_rows} rows in all"
    ):
        split_rows(keys, [0] * num_rows, val_size, 1)


def test_nothing_but_copies():
    with pytest.raises(SettingsError, match="val_size: all 5 rows are the same"):
        split_rows(["a"] * 5, [0] * 5, 0.2, 1)


@given(st.lists(st.integers(1, 3000), max_size=200), st.randoms(use_true_random=False))
def test_length_strata(lengths: list[int], rng: random.Random):
    strata = length_strata(lengths)
    assert all(0 <= bucket < 5 for bucket in strata)
    by_length = dict(zip(lengths, strata, strict=True))
    ordered = [by_length[length] for length in sorted(by_length)]
    assert ordered == sorted(ordered)  # longer rows never stand in a lower bucket
    shuffled = rng.sample(lengths, len(lengths))
    assert length_strata(shuffled) == [by_length[length] for length in shuffled]


def test_length_strata_are_of_about_equal_size():
    assert Counter(length_strata(list(range(100)))) == dict.fromkeys(range(5), 20)
    assert length_strata([7] * 10) == [0] * 10
    assert len(set(length_strata([1, 2, 3]))) == 3


@given(st.lists(st.text(max_size=2), max_size=30), st.integers(1, 30), st.integers(0, 3))
def test_sample_is_a_draw_by_content_in_file_order(keys: list[str], most: int, seed: int):
    rows = sample_rows(keys, most, seed)
    assert rows == sorted(set(rows))
    assert len(rows) == min(most, len(keys))
    backwards = sample_rows(keys[::-1], most, seed)
    assert Counter(keys[row] for row in rows) == Counter(keys[::-1][row] for row in backwards)


def test_sample_differs_by_seed():
    keys = [str(row) for row in range(100)]
    assert sample_rows(keys, 10, 1) == sample_rows(keys, 10, 1)
    assert sample_rows(keys, 10, 1) != sample_rows(keys, 10, 2)
    assert sample_rows(keys, 10, 1) != list(range(10))


_GROUPED = st.lists(st.tuples(st.integers(0, 99).map(str), st.integers(0, 9)), min_size=1)


def _grouped(rows: list[tuple[str, int]]) -> tuple[list[str], list[int]]:
    """Equal keys are in equal groups, as they are for rows that are compared by content."""
    group_of = dict(rows)
    return [key for key, _ in rows], [group_of[key] for key, _ in rows]


@given(_GROUPED, st.floats(0.01, 0.99), st.integers(0, 9))
def test_groups_stay_whole_on_two_sides(rows, val_size, seed):
    keys, groups = _grouped(rows)
    if len(keys) < 2 or len(set(groups)) < 2:
        with pytest.raises(SettingsError, match=r"relatives of each other|there are 1 rows in all"):
            split_groups(keys, groups, val_size, seed)
        return
    split = split_groups(keys, groups, val_size, seed)
    assert sorted(split.train + split.val) == list(range(len(rows)))
    assert split.train
    assert split.val
    assert not {groups[row] for row in split.train} & {groups[row] for row in split.val}


@given(_GROUPED, st.randoms(use_true_random=False))
def test_order_of_grouped_rows_does_not_matter(rows, rng: random.Random):
    keys, groups = _grouped(rows)
    if len(set(groups)) < 2:
        return
    places = rng.sample(range(len(rows)), len(rows))
    first = split_groups(keys, groups, 0.3, 5)
    second = split_groups([keys[at] for at in places], [-groups[at] for at in places], 0.3, 5)
    assert set(first.val) == {places[row] for row in second.val}


def test_row_keeps_its_side_unless_its_group_grows():
    keys = [str(row) for row in range(4000)]
    groups = [row // 2 if row < 1000 else row for row in range(4000)]
    before = split_groups(keys[:2000], groups[:2000], 0.1, 1)
    # 1,500 rows alone, and 500 that join the rows 1000 to 1499.
    groups[2000:2500] = range(1000, 1500)
    after = split_groups(keys, groups, 0.1, 1)
    moved = set(before.val) ^ {row for row in after.val if row < 2000}
    assert moved <= set(range(1000, 1500))
    assert len(moved) < 0.14 * 500  # half of the anchors are new, and .18 of these fall elsewhere


def test_groups_of_every_size_validate_alike():
    groups = [row // 4 if row < 4000 else row for row in range(8000)]
    val = split_groups([str(row) for row in range(8000)], groups, 0.1, 2).val
    for side in (True, False):
        assert 0.07 < sum((row < 4000) == side for row in val) / 4000 < 0.13


def test_number_of_rows_is_a_share_that_only_falls():
    keys = [str(row) for row in range(5000)]
    before = split_groups(keys[:2500], range(2500), 200, 3).val
    after = split_groups(keys, range(5000), 200, 3).val
    assert 150 < len(before) < 250
    assert 150 < len(after) < 250
    assert {row for row in after if row < 2500} <= set(before)


def test_groups_too_few_to_draw_from():
    assert split_groups(["a", "b"], [0, 1], 0, 1) == Split([0, 1], [])
    for val_size in (0.001, 0.999, 1):
        split = split_groups(["a", "b", "c"], [0, 1, 2], val_size, 1)
        assert split.train
        assert split.val
    with pytest.raises(SettingsError, match="val_size: all 3 rows are relatives of each other"):
        split_groups(["a", "b", "c"], [7, 7, 7], 0.5, 1)
    with pytest.raises(SettingsError, match="there are 3 rows in all"):
        split_groups(["a", "b", "c"], [0, 1, 2], 3, 1)


def test_stratum_shares():
    assert stratum_shares(Split([0, 1, 2], [3, 4]), ["b", "b", "a", "b", "a"]) == {
        "a": 1 / 2,
        "b": 1 / 3,
    }
