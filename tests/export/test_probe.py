from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from luthier.core.errors import ModelError
from luthier.export import probe as module
from luthier.export.probe import RowLogProbs, perplexity, read_probe, write_probe


def log_probs(num_places, num_tokens, seed=0, scale=3.0):
    logits = np.random.default_rng(seed).normal(size=(num_places, num_tokens)) * scale
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def whole_divergence(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (np.exp(one) * (one - other)).sum(1)


def test_of_a_small_vocabulary_the_divergence_is_exact():
    one, other = log_probs(5, 40), log_probs(5, 40, seed=1)
    row = RowLogProbs.of(one, [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(row.divergence(other), whole_divergence(one, other), atol=1e-5)
    np.testing.assert_allclose(row.divergence(one), 0, atol=1e-6)
    assert row.same_top(one).all()
    assert list(row.same_top(other)) == list(one.argmax(1) == other.argmax(1))
    assert row.next_log_probs[2] == one[2, 3]


def test_of_a_large_one_the_rest_counts_as_one_token():
    one = log_probs(4, 4000)
    other = log_probs(4, 4000, seed=2, scale=0.1)
    other = (one + 0.1 * other).astype(np.float32)
    other -= np.log(np.exp(other).sum(1, keepdims=True))
    row = RowLogProbs.of(one, [0, 1, 2, 3, 4])
    assert row.kept_log_probs.shape == (4, module.NUM_KEPT)
    exact = whole_divergence(one, other)
    assert (row.divergence(other) <= exact + 1e-6).all()
    changed = other.copy()
    changed[:, row.kept_ids[:, 0]] -= 1.0
    assert (row.divergence(changed) > row.divergence(other)).all()


def test_tokens_beyond_the_vocabulary_belong_to_the_rest():
    one = log_probs(3, 20)
    padded = np.concatenate([one, np.full((3, 4), -30, np.float32)], axis=1)
    row = RowLogProbs.of(one, [0, 1, 2, 3])
    np.testing.assert_allclose(row.divergence(padded), 0, atol=1e-6)


def test_perplexity_counts_each_token_once():
    rows = [np.log([0.5]).astype(np.float32), np.log([0.25, 0.125]).astype(np.float32)]
    assert perplexity(rows) == pytest.approx(4.0)


def test_a_probe_is_read_as_it_was_written(probe, tmp_path):
    probe = replace(probe, day="2026-11-24")
    write_probe(probe, tmp_path / "probe")
    found = read_probe(tmp_path / "probe")
    assert found.chats == probe.chats
    assert (found.rows, found.prompts, found.answers) == (probe.rows, probe.prompts, probe.answers)
    assert (found.stopped, found.stop_token_ids) == (probe.stopped, probe.stop_token_ids)
    assert (found.perplexity, found.day) == (probe.perplexity, probe.day)
    for one, other in zip(found.log_probs, probe.log_probs, strict=True):
        np.testing.assert_array_equal(one.kept_log_probs, other.kept_log_probs)
        np.testing.assert_array_equal(one.kept_ids, other.kept_ids)
        assert one.num_tokens == other.num_tokens
    assert {path.name for path in (tmp_path / "probe").iterdir()} == {
        "probe.json",
        "log_probs.npz",
    }


def test_a_missing_probe_is_named(tmp_path):
    with pytest.raises(ModelError, match="missing or damaged"):
        read_probe(tmp_path)
