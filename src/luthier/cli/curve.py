"""A curve in the terminal, in blocks of an eighth of a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def draw_curve(values: Sequence[float], *, width: int = 60, height: int = 8) -> list[str]:
    """Draw values from left to right and return the lines, the highest first.

    Args:
        values: At least one number; more than `width` of them are averaged in groups.
        width: Columns of the curve, without its axis.
        height: Lines.
    """
    columns = _squeeze(list(values), width)
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    levels = [round((value - low) / span * (height * 8 - 1)) + 1 for value in columns]
    lines: list[str] = []
    for row in range(height - 1, -1, -1):
        cells = "".join(_EIGHTHS[max(0, min(8, level - row * 8))] for level in levels)
        label = {height - 1: f"{high:.3f}", 0: f"{low:.3f}"}.get(row, "")
        lines.append(f"{label:>8} │{cells}")
    return lines


def _squeeze(values: list[float], width: int) -> list[float]:
    if len(values) <= width:
        return values
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    groups = [values[a:b] for a, b in pairwise(edges)]
    return [sum(group) / len(group) for group in groups]
