from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.errors import MissingExtraError
from luthier.corpus.steps.candidates import (
    DUPLICATES,
    RELATIVES,
    candidate_pairs,
    components,
    signatures,
)
from luthier.corpus.steps.gram_sets import GramSets, gather, likeness, sketch_rows


def _related(num_rows: int, kept_share: float, seed: int = 0) -> GramSets:
    """Pairs of rows (0, 1), (2, 3), ...: the second one keeps a share of the first one's words."""
    draw = random.Random(seed)
    texts: list[str] = []
    for _ in range(num_rows // 2):
        words = [f"w{draw.randrange(10**6)}" for _ in range(60)]
        cut = round(60 * kept_share)
        other = words[:cut] + [f"w{draw.randrange(10**6)}" for _ in range(60 - cut)]
        texts += [" ".join(words), " ".join(other)]
    return gather(sketch_rows([""] * num_rows, texts))


@pytest.mark.parametrize(
    ("bands", "kept", "least", "share"),
    [(DUPLICATES, 0.8, 0.6, 0.98), (RELATIVES, 0.6, 0.4, 0.98)],
)
def test_alike_rows_are_found_and_few_others(bands, kept: float, least: float, share: float):
    sets = _related(600, kept)
    left, right = candidate_pairs(sets, bands, least)
    assert (left < right).all()
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    assert len(pairs) == len(left)
    found = sum((row, row + 1) in pairs for row in range(0, 600, 2))
    assert found >= share * 300
    assert len(pairs) - found <= 3


def test_signatures_estimate_jaccard():
    sets = _related(200, 0.7)
    found = signatures(sets, 128)
    left, right = np.arange(0, 200, 2), np.arange(1, 200, 2)
    estimates = (found[left] == found[right]).mean(axis=1)
    assert abs(estimates - likeness(sets, left, right).whole).mean() < 0.05
    assert signatures(gather([]), 8).shape == (0, 8)


def test_crowded_bucket_grows_with_its_rows_not_their_square():
    sets = gather(sketch_rows([""] * 400, [f"a b c d e f g h i j k l {row}" for row in range(400)]))
    left, right = candidate_pairs(sets, DUPLICATES, 0.6)
    assert len(left) < 400 * 40
    assert set(range(1, 400)) <= set(right[left == 0].tolist())
    assert components(400, left, right).tolist() == [0] * 400


def test_rows_without_words_are_no_candidates():
    left, _ = candidate_pairs(gather(sketch_rows(["", "", "a"], [""] * 3)), DUPLICATES, 0.6)
    assert not len(left)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_components_are_those_of_a_walk(pairs: list[tuple[int, int]]):
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    near = {row: {row} for row in range(20)}
    for one, other in pairs:
        merged = near[one] | near[other]
        for row in merged:
            near[row] = merged
    assert components(20, left, right).tolist() == [min(near[row]) for row in range(20)]


def test_long_chain_is_one_component():
    rows = np.random.default_rng(0).permutation(5000)
    assert not components(5000, rows[:-1], rows[1:]).any()


def test_rensa_is_an_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingExtraError, match="near-duplicate search needs the package rensa"):
        signatures(_related(2, 1.0), 8)
