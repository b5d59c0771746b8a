"""Tokens and rows of a batch, padded or not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.batches.collate import causal_lm_collate
from luthier.batches.flat import flat_collate
from luthier.contracts.counting import (
    count_positions,
    count_rows,
    count_supervised,
    count_tokens,
)
from luthier.objectives.causal_lm import causal_lm_loss


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_padded_and_flat_batches_of_the_same_rows_count_the_same(lengths: list[int]) -> None:
    rows = [{"input_ids": [0] * length, "labels": [-100] * length} for length in lengths]
    for batch in (causal_lm_collate(rows, pad_id=0), flat_collate(rows)):
        assert count_tokens(batch) == sum(lengths)
        assert count_rows(batch) == len(lengths)


def test_positions_are_those_that_are_computed() -> None:
    rows = [{"input_ids": [0] * length, "labels": [-100] * length} for length in (2, 5)]
    assert count_positions(causal_lm_collate(rows, pad_id=0)) == 10
    assert count_positions(flat_collate(rows)) == 7


def test_supervised_tokens_are_those_that_the_loss_counts() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "loss_weights": [1.0, 0.0, 0.5]},
        {"input_ids": [8, 9], "labels": [-100, 9], "loss_weights": [0.0, 1.0]},
    ]
    plain = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
    for given_rows, expected in ((rows, 2), (plain, 3)):
        for batch in (causal_lm_collate(given_rows, pad_id=0), flat_collate(given_rows)):
            logits = torch.zeros(*batch["labels"].shape, 10)
            loss = causal_lm_loss(logits, batch["labels"], batch.get("loss_weights"))
            assert count_supervised(batch) == int(loss.num_tokens) == expected
