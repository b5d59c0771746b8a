from __future__ import annotations

import pytest

from luthier.evaluation.math_answer import final_answer, number_in, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18.\n#### 18", "18"),
        ("#### 5\nThat is all, 7 times.", "5"),
        ("So it is \\boxed{\\frac{3}{4}} of 12.", "\\frac{3}{4}"),
        ("\\boxed{1} or rather \\boxed{2}", "2"),
        ("That makes 10 - 4 = 6 apples, so 1,200.50 in all.", "1,200.50"),
        ("It was -5 degrees.", "-5"),
        ("It is 10-4", "4"),
        ("I don't know.", ""),
        ("It is cut: \\boxed{3", "3"),
    ],
)
def test_where_the_answer_stands(text: str, answer: str):
    assert final_answer(text).lstrip("$ ") == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", "$18.00"),
        ("1,000", "1000"),
        ("0.5", "1/2"),
        (".5", "\\frac{1}{2}"),
        ("-3", "−3"),
        ("18 dollars", "18"),
        ("72.", "72"),
        ("50%", "50"),
        ("x + 1", "x+1"),
        ("2x", "2X"),
    ],
)
def test_answers_that_are_the_same(one: str, other: str):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("18", "81"), ("-3", "3"), ("2x", "2"), ("3^2", "3"), ("1/3", "0.33")),
        *(("", ""), ("", "0"), ("1 and 2", "1"), ("1/0", "1"), ("\\sqrt{2}", "2")),
    ],
)
def test_answers_that_are_not(one: str, other: str):
    assert not same_answer(one, other)
    assert not same_answer(other, one)


def test_what_is_no_single_number():
    assert number_in("1/0") is None
    assert number_in("2 and 3") is None
    assert number_in("nothing") is None
