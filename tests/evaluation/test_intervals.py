from __future__ import annotations

import numpy as np
import pytest

from luthier.evaluation.intervals import NUM_DRAWS, compare, estimate
from luthier.evaluation.metrics.score import Score, mean_score


def ratio(totals, counts):
    statistics = np.stack([np.asarray(totals, float), np.asarray(counts, float)], axis=1)
    return Score(
        "ratio",
        statistics,
        lambda sums: sums[:, 0] / sums[:, 1],
        statistics[:, 0] / statistics[:, 1],
        "",
        lower_is_better=True,
    )


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    found = estimate(mean_score("m", values, ""))
    error = values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert found.num_rows == 400


def test_the_interval_is_the_same_each_time():
    score = ratio([3, 1, 4, 1, 5], [2, 7, 1, 8, 2])
    assert estimate(score) == estimate(score)


def test_a_ratio_of_sums_weighs_rows_by_their_counts():
    found = estimate(ratio([10, 90], [10, 30]))
    assert found.value == 2.5
    assert (found.low, found.high) == (1.0, 3.0)  # each row drawn twice, at the ends


def test_many_rows_are_drawn_in_parts(monkeypatch):
    score = mean_score("m", np.random.default_rng(0).normal(size=50), "")
    whole = estimate(score)
    monkeypatch.setattr("luthier.evaluation.intervals._MAX_COUNTS", 50 * 7)
    assert NUM_DRAWS % 7
    parts = estimate(score)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high))


def test_a_single_row_has_no_interval():
    found = estimate(ratio([1], [2]))
    assert (found.value, found.low, found.high, found.num_rows) == (0.5, None, None, 1)


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    # Newcombe, Statistics in Medicine 1998, table I: Wilson's score interval.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_a_share_has_wilsons_interval(right, rows, low, high):
    found = estimate(mean_score("m", [1.0] * right + [0.0] * (rows - right), "", is_share=True))
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_a_share_of_all_is_not_certain():
    found = estimate(mean_score("m", [1.0] * 4, "", is_share=True))
    assert found.high == 1.0
    assert found.low == pytest.approx(0.5101, abs=1e-4)


def test_wins_and_losses_follow_what_is_better():
    higher = compare(mean_score("m", [1, 2, 3], ""), mean_score("m", [2, 2, 1], ""))
    assert (higher.wins, higher.losses, higher.ties) == (1, 1, 1)
    assert higher.estimate.value == pytest.approx(-1 / 3)
    lower = compare(ratio([4, 4, 4], [1, 1, 1]), ratio([3, 3, 5], [1, 1, 1]))
    assert (lower.wins, lower.losses, lower.ties) == (2, 1, 0)


def test_both_models_are_drawn_on_the_same_rows():
    base = np.random.default_rng(2).normal(0, 100, size=60)
    found = compare(mean_score("m", base, ""), mean_score("m", base + 1, ""))
    assert found.estimate.low == pytest.approx(1)
    assert found.estimate.high == pytest.approx(1)


def test_two_shares_that_never_differ_are_not_certainly_the_same():
    zeros = mean_score("m", [0.0] * 10, "", is_share=True)
    found = compare(zeros, zeros).estimate
    assert found.high is not None
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert 0.1 < found.high < 0.3


def test_the_interval_of_two_shares_holds_their_difference():
    # Agresti and Min 2005, by hand: 16 rows only the tuned model has right, 12 only the base.
    base = [1.0] * 12 + [0.0] * 16 + [1.0] * 30
    tuned = [0.0] * 12 + [1.0] * 16 + [1.0] * 30
    found = compare(
        mean_score("m", base, "", is_share=True), mean_score("m", tuned, "", is_share=True)
    )
    # (b + .5 - c - .5) / 60, and sqrt((29 - 60 * d * d)) / 60 for the error.
    middle, error = 4 / 60, np.sqrt(29 - 60 * (4 / 60) ** 2) / 60
    assert found.estimate.value == pytest.approx(4 / 58)
    assert found.estimate.low == pytest.approx(middle - 1.959964 * error)
    assert found.estimate.high == pytest.approx(middle + 1.959964 * error)


def test_models_of_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="2 rows can't be compared with 3"):
        compare(mean_score("m", [1, 2], ""), mean_score("m", [1, 2, 3], ""))
