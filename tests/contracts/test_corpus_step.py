from __future__ import annotations

import dataclasses

import pytest

from luthier.contracts.corpus_step import Drop, StepResult


def test_results_do_not_share_their_lists():
    first, second = StepResult({"id": []}), StepResult({"id": []})
    first.drops.append(Drop("a", "short", "2 characters"))
    first.counts["redacted_email"] += 1
    assert second.drops == []
    assert not second.counts


def test_a_drop_cannot_be_changed():
    drop = Drop("a", "dup_near", "like row b", matched_id="b", score=0.9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        drop.reason = "other"  # type: ignore[misc]
