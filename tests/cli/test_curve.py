from __future__ import annotations

import pytest

from luthier.cli.curve import draw_curve


def test_a_falling_curve():
    assert draw_curve([4.0, 3.0, 2.0, 1.0], height=2) == [
        "   4.000 │█▃  ",
        "   1.000 │██▆▁",
    ]


def test_the_highest_and_the_lowest_value_stand_at_the_axis():
    lines = draw_curve([2.5, 1.25, 7.125], height=4)
    assert [line.split("│")[0].strip() for line in lines] == ["7.125", "", "", "1.250"]


def test_a_level_curve_is_a_line_and_no_division_by_zero():
    assert draw_curve([2.0, 2.0], height=1) == ["   2.000 │▁▁"]


def test_one_value():
    assert len(draw_curve([3.0])) == 8


@pytest.mark.parametrize("count", [60, 61, 119, 1_000])
def test_many_values_are_averaged_to_the_width(count: int):
    lines = draw_curve([float(i) for i in range(count)], width=60)
    assert {len(line.split("│")[1]) for line in lines} == {60}
    low = float(lines[-1].split("│")[0])
    high = float(lines[0].split("│")[0])
    assert low + high == pytest.approx(count - 1, abs=1)  # a ramp's ends lie evenly about its mean


def test_groups_are_means():
    lines = draw_curve([0.0, 2.0, 4.0, 6.0], width=2, height=1)
    assert lines[0].startswith("   1.000 │")
    assert lines[0].endswith("▁█")
