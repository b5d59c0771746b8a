"""Policy and reference of a batch, as objectives take them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from luthier.batches.pairs import separate_pair_collate
from luthier.objectives.find_head import find_head
from luthier.objectives.pair_log_probs import pair_log_probs
from luthier.objectives.pair_scores import AnswerScorer, PairScorer, count_pairs

NAMES = ("chosen", "rejected", "chosen_shared", "rejected_shared")


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    pairs: list[dict[str, Any]] = [
        {
            "input_ids": [5, 6, 7, 8, 9, 10],
            "labels": [-100, -100, 7, 8, 9, 10],
            "prompt_length": 2,
            "chosen_length": length,
            "desirable": length == 1,
            **{f"reference_{name}": -length - place / 4 for place, name in enumerate(NAMES)},
        }
        for length in (1, 2, 3)
    ]
    return separate_pair_collate(pairs, pad_id=0)


def test_pairs(tiny_model: Any, batch: dict[str, torch.Tensor]) -> None:
    head, _ = find_head(tiny_model)
    policy, reference = PairScorer(head)(tiny_model, batch)
    torch.testing.assert_close(policy.chosen, pair_log_probs(head, tiny_model, batch).chosen)
    assert policy.chosen.requires_grad
    assert reference is not None
    for place, name in enumerate(NAMES):
        assert getattr(reference, name).tolist() == [-n - place / 4 for n in (1, 2, 3)]
    assert reference.chosen_tokens.tolist() == policy.chosen_tokens.tolist() == [1, 2, 3]
    assert reference.rejected_tokens.tolist() == policy.rejected_tokens.tolist() == [3, 2, 1]
    assert count_pairs(batch).item() == 3


def test_objectives_without_a_reference_need_no_numbers_of_it(
    tiny_model: Any, batch: dict[str, torch.Tensor]
) -> None:
    del batch["reference_rejected_shared"]
    _, reference = PairScorer(None, needs_reference=False)(tiny_model, batch)
    assert reference is None
    with pytest.raises(ValueError, match="the batch has no reference_rejected_shared: compute"):
        PairScorer(None)(tiny_model, batch)
    with pytest.raises(ValueError, match="before training, and add them to the rows"):
        AnswerScorer(None)(tiny_model, batch)


def test_answers_with_a_verdict(tiny_model: Any, batch: dict[str, torch.Tensor]) -> None:
    head, _ = find_head(tiny_model)
    policy, reference, is_desirable = AnswerScorer(head)(tiny_model, batch)
    pairs = pair_log_probs(head, tiny_model, batch)
    torch.testing.assert_close(policy.answer, pairs.chosen)
    torch.testing.assert_close(policy.mismatched, pairs.rejected)
    assert policy.answer.requires_grad
    assert not policy.mismatched.requires_grad
    assert policy.answer_tokens.tolist() == [1, 2, 3]
    assert reference.answer.tolist() == [-1.0, -2.0, -3.0]
    assert reference.mismatched.tolist() == [-1.25, -2.25, -3.25]
    assert is_desirable.tolist() == [True, False, False]
