"""Points of curves, from the records of metrics.jsonl: on three axes, smoothed, few enough to draw.

In: records of one kind, in their order. Out: plain lists, in which None is a gap in the line (a
value that was no number).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Points = tuple[list[Any], list[float | None]]

MOST_POINTS = 2_000
"""A curve of more is thinned: a screen has no more columns."""

_FEWEST_TO_SMOOTH = 12
_SHARE_OF_CURVE = 1 / 30


def value(record: Record, name: str) -> float | None:
    """Return a metric of a record; None where it has none, or one that is no finite number."""
    found = record.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if math.isfinite(found) else None


def column(records: Sequence[Record], name: str) -> list[float | None]:
    """Return a metric of each record."""
    return [value(record, name) for record in records]


def has(records: Sequence[Record], name: str) -> bool:
    """Whether any record has a number under this name."""
    return any(value(record, name) is not None for record in records)


def steps_of(records: Sequence[Record]) -> list[int]:
    """Return how many steps each record of training speaks of: those since the one before."""
    found: list[int] = []
    before = 0
    for record in records:
        step = int(record["step"])
        found.append(max(step - before, 0))
        before = step
    return found


def clock(records: Sequence[Record]) -> list[float]:
    """Return the seconds of work at each record; `elapsed_seconds` begins anew at each start."""
    found: list[float] = []
    earlier = newest = 0.0
    for record in records:
        elapsed = value(record, "elapsed_seconds")
        if elapsed is None:
            elapsed = newest
        if elapsed < newest:
            earlier += newest
        newest = elapsed
        found.append(earlier + newest)
    return found


def tokens(records: Sequence[Record]) -> list[float]:
    """Return the tokens that were trained on up to each record of training."""
    found: list[float] = []
    total = 0.0
    for record, num_steps in zip(records, steps_of(records), strict=True):
        rate, seconds = value(record, "tokens_per_second"), value(record, "seconds_per_step")
        total += (rate or 0.0) * (seconds or 0.0) * num_steps
        found.append(total)
    return found


def at_steps(
    wanted: Sequence[Record], steps: Sequence[int], values: Sequence[float]
) -> list[float]:
    """Return the value that belongs to the step of each wanted record, between those known.

    Args:
        wanted: Records, such as those of validations.
        steps: Ascending.
        values: One a step.
    """
    found: list[float] = []
    known = [(0, 0.0), *zip(steps, values, strict=True)]
    at = 0
    for record in wanted:
        step = int(record["step"])
        while at + 1 < len(known) and known[at + 1][0] <= step:
            at += 1
        left, low = known[at]
        right, high = known[at + 1] if at + 1 < len(known) else known[at]
        part = (step - left) / (right - left) if right > left else 0.0
        found.append(low + part * (high - low))
    return found


def smoothed(values: Sequence[float | None]) -> list[float | None]:
    """Return a running mean that forgets, over about a thirtieth of the curve; [] for few points.

    Source:
        Kingma and Ba 2015, algorithm 1: the mean is divided by the weight that it has so far.
    """
    if len(values) < _FEWEST_TO_SMOOTH:
        return []
    beta = 1 - 1 / max(3.0, len(values) * _SHARE_OF_CURVE)
    mean = weight = 0.0
    found: list[float | None] = []
    for number in values:
        if number is None:
            found.append(None)
            continue
        mean, weight = beta * mean + (1 - beta) * number, beta * weight + 1 - beta
        found.append(mean / weight)
    return found


def thinned(xs: Sequence[Any], ys: Sequence[float | None], most: int = MOST_POINTS) -> Points:
    """Return at most about so many points, with the first, the last, and all peaks and valleys.

    Of each stretch of the curve its lowest and its highest point stay, so that a spike of one step
    is still seen; a stretch without a number stays as a gap.
    """
    if len(ys) <= most:
        return list(xs), list(ys)
    width = math.ceil(2 * len(ys) / most)
    kept = {0, len(ys) - 1}
    for start in range(0, len(ys), width):
        stretch = range(start, min(start + width, len(ys)))
        known = [(number, at) for at in stretch if (number := ys[at]) is not None]
        kept |= {min(known)[1], max(known)[1]} if known else {start}
    order = sorted(kept)
    return [xs[at] for at in order], [ys[at] for at in order]
