from __future__ import annotations

import pytest

from luthier.corpus.lengths import TOKEN_EDGES, TokenRate, class_name, length_class


def test_both_kinds_of_letters_count():
    rate = TokenRate(narrow=0.25, wide=0.5)
    assert rate.tokens("abcd") == 1
    assert rate.tokens("中文中文") == 2
    assert rate.tokens("abcd中文") == 2
    assert rate.tokens("") == 0


def test_rates_are_fitted_to_counts():
    texts = ["a" * 40, "中" * 10, "a" * 20 + "中" * 20, "a" * 80]
    counts = [10, 15, 35, 20]
    rate = TokenRate.of(texts, counts, "some tokenizer")
    assert rate.narrow == pytest.approx(0.25)
    assert rate.wide == pytest.approx(1.5)
    assert rate.tokenizer == "some tokenizer"


def test_a_kind_that_the_sample_lacks_keeps_its_rate():
    rate = TokenRate.of(["a" * 40, "b" * 80], [20, 40], "t")
    assert rate.narrow == pytest.approx(0.5)
    assert rate.wide == TokenRate().wide


def test_an_empty_sample_changes_no_rate():
    assert TokenRate.of([], [], "t").narrow == TokenRate().narrow


def test_classes_of_length():
    assert length_class(0) == 32
    assert length_class(32) == 32
    assert length_class(32.5) == 64
    assert length_class(TOKEN_EDGES[-1] + 1) == 0
    assert class_name(32) == "1 to 32"
    assert class_name(128) == "65 to 128"
    assert class_name(0) == "over 32768"
