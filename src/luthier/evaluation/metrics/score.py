"""What a metric finds: numbers of each row that add up, and the metric of their sums.

BLEU, a perplexity and a mean are all made of sums over rows. With the sums of each row at hand, the
metric of any choice of rows is one matrix product away, and so is its interval (`intervals.py`).

Shape suffixes: N rows, K numbers of a row, B choices of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of some answers.

    Attributes:
        name: What tables call it.
        statistics: The numbers of each row that are summed, (N, K).
        of_sums: From sums (B, K) to the metric (B,) of each.
        row_values: The metric of each row by itself, (N,), for comparing rows.
        how: How it is computed: the tokenizer, the tool's own signature.
        is_share: Whether it is a share of the rows, each of which is 0 or 1.
        lower_is_better: As a perplexity is.
    """

    name: str
    statistics: FloatArray
    of_sums: Callable[[FloatArray], FloatArray]
    row_values: FloatArray
    how: str
    is_share: bool = False
    lower_is_better: bool = False

    @property
    def value(self) -> float:
        """The metric of all rows."""
        return float(self.of_sums(self.statistics.sum(axis=0, keepdims=True))[0])


def mean_score(
    name: str, values: Sequence[float] | FloatArray, how: str, *, is_share: bool = False
) -> Score:
    """Return the mean of a value of each row."""
    rows_N = np.asarray(values, dtype=np.float64)
    statistics_NK = np.stack([rows_N, np.ones_like(rows_N)], axis=1)
    return Score(name, statistics_NK, _mean, rows_N, how, is_share=is_share)


def _mean(sums_BK: FloatArray) -> FloatArray:
    return sums_BK[:, 0] / sums_BK[:, 1]
