"""The records of preference objectives: what may be left out, and that they do not change."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from luthier.contracts.preference import AnswerLogProbs, PairLogProbs


def test_sums_over_the_shared_length_are_given_only_where_they_are_needed() -> None:
    sums, tokens = torch.zeros(2), torch.ones(2)
    pairs = PairLogProbs(chosen=sums, rejected=sums, chosen_tokens=tokens, rejected_tokens=tokens)
    assert pairs.chosen_shared is None
    assert pairs.rejected_shared is None


def test_records_are_frozen() -> None:
    answers = AnswerLogProbs(torch.zeros(2), torch.ones(2), torch.zeros(2))
    with pytest.raises(FrozenInstanceError):
        answers.answer = torch.ones(2)  # type: ignore[misc]
