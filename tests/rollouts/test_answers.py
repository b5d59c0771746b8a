from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from luthier.batches.collate import CausalLMCollator, Collate
from luthier.batches.flat import FlatCollator
from luthier.objectives.grpo import REPORTED, AnswerTokens
from luthier.rollouts.answers import Rollout, from_json, rollout_batch

ROLLOUTS = [
    Rollout([5, 6, 7], [8, 9], 0.5, {"reward": 1.0}, [-0.1, -0.2], [-0.3, -0.4]),
    Rollout([5], [8], -1.5, {"reward": 0.0}, [-0.7], [-0.8]),
    Rollout([5, 6], [7, 8, 9], 0.25, {"reward": 2.0}, [-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]),
]


@pytest.mark.parametrize("collate", [CausalLMCollator(0), FlatCollator()])
def test_what_is_known_of_an_answer_stands_at_its_tokens(collate: Collate):
    batch = rollout_batch(ROLLOUTS, collate)
    tokens = AnswerTokens.of(batch["labels"])
    assert tokens.lengths.tolist() == [2, 1, 3]
    for name, values in (
        ("advantages", [0.5, 0.5, -1.5, 0.25, 0.25, 0.25]),
        (f"{REPORTED}reward", [1.0, 1.0, 0.0, 2.0, 2.0, 2.0]),
        ("old_log_probs", [-0.1, -0.2, -0.7, -1.0, -2.0, -3.0]),
        ("reference_log_probs", [-0.3, -0.4, -0.8, -4.0, -5.0, -6.0]),
    ):
        assert batch[name].shape == batch["labels"].shape
        assert tokens.take(batch[name]).tolist() == pytest.approx(values)
        assert batch[name].count_nonzero() == sum(value != 0 for value in values)


def test_log_probabilities_that_nobody_asks_for_are_not_there():
    plain = [replace(one, old_log_probs=None, reference_log_probs=None) for one in ROLLOUTS]
    batch = rollout_batch(plain, CausalLMCollator(0))
    assert "old_log_probs" not in batch
    assert "reference_log_probs" not in batch


def test_json_keeps_every_bit():
    value = float(torch.tensor(0.1).log())
    one = replace(ROLLOUTS[0], old_log_probs=[value, -value])
    assert from_json(json.loads(json.dumps(asdict(one)))) == one
