from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.corpus.overlap import normalised, overlapping


@pytest.mark.parametrize(
    "twin", ["What is  2+2?", "what is 2+2?", " What is\n2+2?\t", "Ｗhat is ２+２?", "WHAT IS 2+2?"]
)
def test_twins_are_found(twin: str):
    assert overlapping(["other", "What is 2+2?"], ["fresh", twin, "2+2"]) == [1]


def test_nothing_in_common():
    assert overlapping([], ["a"]) == []
    assert overlapping(["a"], []) == []
    assert overlapping(["今天"], ["昨天"]) == []


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
def test_found_are_those_whose_text_is_known(train: list[str], val: list[str]):
    known = {normalised(text) for text in train}
    expected = [row for row, text in enumerate(val) if normalised(text) in known]
    assert overlapping(iter(train), iter(val)) == expected
    assert overlapping(train + val, val) == list(range(len(val)))
