"""Numbers as people read them, around the edges of each unit."""

from __future__ import annotations

import pytest

from luthier.core.units import format_bytes, format_count, format_seconds, format_share


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1.5 * 1024**3, "1.5 GiB"),
        (1000 * 1024**3, "1000.0 GiB"),
        (1.5 * 1024**4, "1.5 TiB"),
        (9000 * 1024**4, "9000.0 TiB"),
    ],
)
def test_bytes(value: float, expected: str) -> None:
    assert format_bytes(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_seconds(value: float, expected: str) -> None:
    assert format_seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (9999, "9,999"),
        (12_345, "12.3k"),
        (999_949, "999.9k"),
        (999_960, "1.0M"),
        (1_700_000, "1.7M"),
        (8e9, "8.0B"),
        (4.5e13, "45.0T"),
        (4.5e16, "45000.0T"),
    ],
)
def test_counts(value: float, expected: str) -> None:
    assert format_count(value) == expected


def test_share() -> None:
    assert format_share(1, 3) == "33.3 %"
    assert format_share(0, 5) == "0.0 %"
    assert format_share(0, 0) == "-"
