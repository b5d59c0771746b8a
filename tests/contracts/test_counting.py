"""Tokens and rows of a batch, padded or not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luthier.batches.collate import causal_lm_collate
from luthier.batches.flat import flat_collate
from luthier.contracts.counting import count_rows, count_tokens


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_padded_and_flat_batches_of_the_same_rows_count_the_same(lengths: list[int]) -> None:
    rows = [{"input_ids": [0] * length, "labels": [-100] * length} for length in lengths]
    for batch in (causal_lm_collate(rows, pad_id=0), flat_collate(rows)):
        assert count_tokens(batch) == sum(lengths)
        assert count_rows(batch) == len(lengths)
