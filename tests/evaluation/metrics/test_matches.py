from __future__ import annotations

import pytest

from luthier.evaluation.metrics.matches import (
    exact_match,
    looks_like_math,
    math_answer,
    normalised,
)


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("Paris", "paris.", True),
        ("  New\n York ", "new york", True),
        ("ＡＢＣ１", "abc1", True),
        ("北京。", "北京", True),
        ("Paris, France", "Paris", False),
        ("", "", True),
        ("3.5", "35", False),
    ],
)
def test_what_counts_as_the_same(text, other, same):
    assert (normalised(text) == normalised(other)) is same
    score = exact_match([text, "x"], [other, "y"])
    assert score.value == same / 2
    assert score.is_share


def test_numbers_are_compared_and_not_how_they_are_written():
    answers = ["So she has 1,000 apples.", "The answer is 7.", "I don't know.", "\\boxed{18}"]
    references = ["9 * 2...\n#### 1000", "#### 8", "#### 5", "#### 18"]
    score = math_answer(answers, references)
    assert score.row_values.tolist() == [1, 0, 0, 1]
    assert score.is_share


def test_references_of_gsm8k_are_known():
    assert looks_like_math(["a\n#### 1", "b\n#### 2", "c"])
    assert not looks_like_math(["a\n#### 1", "b"])
    assert not looks_like_math([])
