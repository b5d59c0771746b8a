from __future__ import annotations

import random

import numpy as np
import pytest

from luthier.corpus.steps import gram_sets
from luthier.corpus.steps.gram_sets import (
    frequent_grams,
    gather,
    is_among,
    likeness,
    sketch_rows,
    without,
)


def _like(*rows: tuple[str, str]):
    sets = gather(sketch_rows([row[0] for row in rows], [row[1] for row in rows]))
    return likeness(sets, np.array([0]), np.array([1]))


def test_jaccard_of_word_pairs_by_scope():
    found = _like(("a b c d", "u v w"), ("a b c e", "u v w"))
    assert found.prompt.tolist() == [2 / 4]
    assert found.answer.tolist() == [1.0]
    assert found.whole.tolist() == [4 / 6]
    assert found.answer_size.tolist() == [2]


def test_prompt_and_answer_do_not_mix():
    found = _like(("a b c", "x y"), ("x y", "a b c"))
    assert found.whole.tolist() == [0.0]


def test_empty_scopes_are_alike_and_one_word_is_a_set():
    found = _like(("", "yes"), ("", "yes"))
    assert (found.prompt[0], found.answer[0], found.whole[0]) == (1, 1, 1)
    found = _like(("", "yes"), ("why", "yes"))
    assert (found.prompt[0], found.answer[0], found.whole[0]) == (0, 1, 0.5)
    assert _like(("", ""), ("", "")).whole.tolist() == [1.0]


def test_many_pairs_in_pieces(monkeypatch: pytest.MonkeyPatch):
    texts = [" ".join(random.Random(row).choices("abcdefgh", k=12)) for row in range(20)]
    sets = gather(sketch_rows(texts, texts[::-1]))
    left, right = np.triu_indices(20, 1)
    whole = likeness(sets, left, right).whole
    monkeypatch.setattr(gram_sets, "_GRAMS_AT_ONCE", 50)
    assert np.array_equal(likeness(sets, left, right).whole, whole)
    nothing = np.zeros(0, np.int64)
    assert likeness(sets, nothing, nothing).whole.tolist() == []


def test_batching_and_order_make_no_difference():
    prompts, answers = ["a b", "", "c d e"], ["x", "y z", ""]
    together = sketch_rows(prompts, answers)
    alone = [sketch_rows([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert together == alone
    assert gather(together).row_bytes() == together
    assert sketch_rows([], []) == []
    assert gather([]).num_rows == 0


def test_long_documents_are_cut_and_compared_by_estimate():
    words = [str(number) for number in range(20_000)]
    half = words[:10_000] + [f"x{number}" for number in range(10_000)]
    sketches = sketch_rows(["", ""], [" ".join(words), " ".join(half)])
    assert [len(sketch) for sketch in sketches] == [4 * gram_sets.MAX_GRAMS] * 2
    sets = gather(sketches)
    found = likeness(sets, np.array([0]), np.array([1])).whole[0]
    assert found == pytest.approx(1 / 3, abs=0.04)
    short = sketch_rows([""], [" ".join(words[:10_000])])
    found = likeness(gather([*short, sketches[0]]), np.array([0]), np.array([1])).whole[0]
    assert found == pytest.approx(1 / 2, abs=0.04)


def test_frequent_grams_are_taken_out_but_no_scope_is_emptied():
    prompts = [f"please tell me about x{row}" for row in range(10)] + ["please tell me", ""]
    sets = gather(sketch_rows(prompts, ["same"] * 12))
    assert len(frequent_grams(sets, 0.5, 2)) == 4  # three pairs of the prompt, and the answer
    assert len(frequent_grams(sets, 0.5, 11)) == 1
    assert len(frequent_grams(sets, 0.5, 12)) == 0
    left, bare = without(sets, frequent_grams(sets, 0.5, 2))
    assert np.diff(left.starts).tolist() == [2] * 10 + [3, 1]
    assert bare[:, 0].tolist() == [False] * 10 + [True, True]
    assert bare[:, 1].all()
    assert without(sets, np.zeros(0, np.uint32))[0].row_bytes() == sets.row_bytes()


def test_is_among():
    ordered = np.array([2, 5], np.uint32)
    assert is_among(np.array([1, 2, 5, 9], np.uint32), ordered).tolist() == [0, 1, 1, 0]
    assert not is_among(ordered, ordered[:0]).any()
