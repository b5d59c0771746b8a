"""How sure a metric is: 95 % intervals from the rows at hand, of one model and of two.

A metric of sums is computed anew for rows drawn with replacement, `NUM_DRAWS` times; the interval
holds the middle 95 % (percentile bootstrap). For a share of rows that are right or wrong, Wilson's
interval takes its place: where none of ten is right, the bootstrap would be sure of 0.

Shape suffixes: N rows, K numbers of a row, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from luthier.core.seeds import derive_seed
from luthier.evaluation.metrics.score import FloatArray, Score

NUM_DRAWS = 1000
_SEED = 42
_Z = 1.959963984540054
"""The standard normal distribution has 95 % of its mass within this distance of 0."""
_MAX_COUNTS = 4_000_000
"""So many counts (draws x rows) are in memory at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval; without one (None) where a single row says nothing of it."""

    value: float
    low: float | None
    high: float | None
    num_rows: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models on the same rows.

    Attributes:
        estimate: The tuned model's metric less the base's.
        wins: Rows on which the tuned model is better; None where rows have no value of their own.
        losses: Rows on which it is worse.
        ties: The others.
    """

    estimate: Estimate
    wins: int | None = None
    losses: int | None = None
    ties: int | None = None


def estimate(score: Score) -> Estimate:
    """Return a metric with its interval.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13; Wilson 1927.
    """
    num_rows = len(score.row_values)
    if score.is_share:
        return Estimate(score.value, *_wilson(float(score.row_values.sum()), num_rows), num_rows)
    return Estimate(score.value, *_middle(_resampled(score), num_rows), num_rows)


def compare(base: Score, tuned: Score) -> Difference:
    """Return by how much two models differ, each draw taking the same rows of both.

    Args:
        base: Of the model that is compared with.
        tuned: The same metric of the same rows.

    Raises:
        ValueError: They are not of the same rows.

    Source:
        Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004; for
        shares Agresti and Min, Statistics in Medicine 2005, which is wider than 0 where the two
        never differ.
    """
    num_rows = len(base.row_values)
    if len(tuned.row_values) != num_rows:
        raise ValueError(f"{num_rows} rows can't be compared with {len(tuned.row_values)}")
    gain_N = tuned.row_values - base.row_values
    if tuned.lower_is_better:
        gain_N = -gain_N
    wins, losses = int((gain_N > 0).sum()), int((gain_N < 0).sum())
    if tuned.is_share and base.is_share:
        low, high = _matched(wins, losses, num_rows)
    else:
        low, high = _middle(_resampled(tuned) - _resampled(base), num_rows)
    difference = Estimate(tuned.value - base.value, low, high, num_rows)
    return Difference(difference, wins, losses, num_rows - wins - losses)


def _resampled(score: Score) -> FloatArray:
    """Return the metric of each draw; for the same number of rows the draws are the same."""
    num_rows = len(score.row_values)
    sums = [counts_BN @ score.statistics for counts_BN in _draws(num_rows)]
    return score.of_sums(np.concatenate(sums))


def _draws(num_rows: int) -> Iterator[FloatArray]:
    """Yield how often each draw takes each row, some draws at a time."""
    random = np.random.default_rng(derive_seed(_SEED, "bootstrap"))
    at_once = max(1, _MAX_COUNTS // num_rows)
    for start in range(0, NUM_DRAWS, at_once):
        size = min(at_once, NUM_DRAWS - start)
        rows_BN = random.integers(num_rows, size=(size, num_rows))
        # Counted over all draws together: each has a stretch of numbers of its own.
        places = (rows_BN + num_rows * np.arange(size)[:, None]).ravel()
        counts = np.bincount(places, minlength=size * num_rows)
        yield counts.reshape(size, num_rows).astype(np.float64)


def _middle(values_B: FloatArray, num_rows: int) -> tuple[float | None, float | None]:
    if num_rows < 2:
        return None, None
    # One of the draws each, not a mean of two: a perplexity may be infinite.
    low, high = np.percentile(values_B, [2.5, 97.5], method="inverted_cdf")
    return float(low), float(high)


def _wilson(num_right: float, num_rows: int) -> tuple[float, float]:
    share, spread = num_right / num_rows, _Z**2 / num_rows
    middle = (share + spread / 2) / (1 + spread)
    width = _Z * math.sqrt((share * (1 - share) + spread / 4) / num_rows) / (1 + spread)
    # At the ends rounding would leave 1e-17 where the formula has 0.
    low = 0.0 if num_right == 0 else max(0.0, middle - width)
    high = 1.0 if num_right == num_rows else min(1.0, middle + width)
    return low, high


def _matched(wins: int, losses: int, num_rows: int) -> tuple[float, float]:
    """Return the interval of a difference of two shares of the same rows: half a row more each."""
    only_tuned, only_base, total = wins + 0.5, losses + 0.5, num_rows + 2
    difference = (only_tuned - only_base) / total
    variance = (only_tuned + only_base - total * difference**2) / total**2
    width = _Z * math.sqrt(variance)
    return max(-1.0, difference - width), min(1.0, difference + width)
