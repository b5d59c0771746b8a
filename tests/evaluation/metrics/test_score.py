from __future__ import annotations

import numpy as np

from luthier.evaluation.metrics.score import mean_score


def test_a_mean_is_of_all_rows_and_of_any_choice_of_them():
    score = mean_score("words", [1, 2, 6], "counted")
    assert score.value == 3
    twice_the_last = np.array([[0.0, 1.0, 2.0]]) @ score.statistics
    assert score.of_sums(twice_the_last).tolist() == [14 / 3]
    assert score.row_values.tolist() == [1, 2, 6]
    assert not score.is_share
