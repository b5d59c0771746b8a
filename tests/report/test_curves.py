"""Points of curves: three axes, gaps, smoothing, and thinning that keeps what stands out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from luthier.report.curves import (
    at_steps,
    clock,
    column,
    has,
    smoothed,
    steps_of,
    thinned,
    tokens,
    value,
)


def test_a_value_that_is_no_number_is_a_gap() -> None:
    records: list[dict[str, Any]] = [{"a": 1}, {"a": None}, {"a": math.nan}, {"a": True}, {}]
    assert column(records, "a") == [1.0, None, None, None, None]
    assert has(records, "a")
    assert not has(records[1:], "a")
    assert value({"a": math.inf}, "a") is None


def test_a_record_speaks_of_the_steps_since_the_one_before() -> None:
    assert steps_of([{"step": 5}, {"step": 10}, {"step": 12}]) == [5, 5, 2]


def test_the_clock_goes_on_where_a_run_was_started_again() -> None:
    records = [{"elapsed_seconds": s} for s in (1.0, 5.0, 2.0, 3.0)]
    assert clock([*records, {}]) == [1.0, 5.0, 7.0, 8.0, 8.0]


def test_tokens_are_rate_times_time() -> None:
    records = [
        {"step": 2, "tokens_per_second": 100.0, "seconds_per_step": 0.5},
        {"step": 3, "tokens_per_second": 200.0, "seconds_per_step": 1.0},
        {"step": 4, "tokens_per_second": None, "seconds_per_step": 1.0},
    ]
    assert tokens(records) == [100.0, 300.0, 300.0]


def test_a_validation_lies_between_the_steps_that_are_known() -> None:
    wanted = [{"step": step} for step in (0, 1, 2, 3, 9)]
    assert at_steps(wanted, [2, 4], [10.0, 30.0]) == [0.0, 5.0, 10.0, 20.0, 30.0]
    assert at_steps(wanted[:1], [], []) == [0.0]


def test_smoothing_follows_the_curve_and_leaves_gaps() -> None:
    found = smoothed([2.0] * 6 + [None] + [4.0] * 60)
    assert found[0] == pytest.approx(2.0)
    assert found[6] is None
    last = found[-1]
    assert last is not None
    assert 3.9 < last <= 4.0
    assert smoothed([1.0] * 11) == []


def test_a_long_curve_keeps_its_ends_and_what_stands_out() -> None:
    ys: list[float | None] = [math.sin(step / 5000) for step in range(100_000)]
    ys[77_777] = 50.0
    ys[33_333] = -50.0
    ys[50_000:50_500] = [None] * 500
    xs, found = thinned(range(len(ys)), ys)
    assert len(found) < 2500
    assert xs == sorted(xs)
    assert (xs[0], xs[-1]) == (0, 99_999)
    assert 77_777 in xs
    assert 33_333 in xs
    assert None in found
    assert all(ys[x] == y for x, y in zip(xs, found, strict=True))


def test_a_short_curve_is_left_as_it_is() -> None:
    assert thinned([1, 2], [0.5, None]) == ([1, 2], [0.5, None])
