"""A cut batch: the same rows and tokens in the same order, in parts that are no larger."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.batches.collate import causal_lm_collate
from luthier.batches.cutting import split_batch
from luthier.batches.flat import flat_collate
from luthier.contracts.counting import (
    count_positions,
    count_rows,
    count_supervised,
    count_tokens,
)

Rows = list[dict[str, Any]]


def make_rows(lengths: list[int]) -> Rows:
    """Make rows whose tokens are all different, so that none can stand for another."""
    rows, first = [], 1
    for length in lengths:
        ids = list(range(first, first + length))
        weights = [0.5 * token for token in ids]
        rows.append({"input_ids": ids, "labels": [-100, *ids[1:]], "loss_weights": weights})
        first += length
    return rows


def padded_rows(batch: Any) -> list[tuple[list[int], ...]]:
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    names = ("input_ids", "labels", "loss_weights")
    return [
        tuple(batch[name][row, :length].tolist() for name in names)
        for row, length in enumerate(lengths)
    ]


def flat_rows(batch: Any) -> list[tuple[list[int], ...]]:
    ends = batch["cu_seqlens"].tolist()
    names = ("input_ids", "labels", "loss_weights")
    assert batch["position_ids"].tolist() == [
        [p for start, end in pairwise(ends) for p in range(end - start)]
    ]
    return [
        tuple(batch[name][0, start:end].tolist() for name in names) for start, end in pairwise(ends)
    ]


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=9)


@given(LENGTHS, st.integers(1, 130))
def test_every_row_stands_in_one_part_and_in_its_place(lengths: list[int], limit: int) -> None:
    rows = make_rows(lengths)
    padded, flat = causal_lm_collate(rows, pad_id=0), flat_collate(rows)
    for batch, rows_of in ((padded, padded_rows), (flat, flat_rows)):
        parts = split_batch(batch, limit)
        assert [row for part in parts for row in rows_of(part)] == rows_of(batch)
        assert all(list(part) == list(batch) for part in parts)
        assert all(part[name].dtype == t.dtype for part in parts for name, t in batch.items())
        assert all(count_positions(p) <= limit or count_rows(p) == 1 for p in parts)
        for count in (count_tokens, count_supervised, count_rows):
            assert sum(map(count, parts)) == count(batch)
        # As few as will do: no part could have taken the next one's first row.
        for part, following in pairwise(parts):
            length = len(rows_of(following)[0][0])
            longest = max(length, *(len(row[0]) for row in rows_of(part)))
            is_padded = rows_of is padded_rows
            grown = longest * (count_rows(part) + 1) if is_padded else count_tokens(part) + length
            assert grown > limit


def test_a_part_has_no_padding_but_its_own() -> None:
    batch = causal_lm_collate(make_rows([2, 3, 9]), pad_id=0)
    assert [tuple(p["input_ids"].shape) for p in split_batch(batch, 9)] == [(2, 3), (1, 9)]


def test_half_of_a_batch_is_two_batches() -> None:
    for collate in (flat_collate, lambda rows: causal_lm_collate(rows, pad_id=0)):
        batch = collate(make_rows([5, 5, 5, 5]))
        assert [count_rows(part) for part in split_batch(batch, 10)] == [2, 2]


def test_tensors_of_other_names_go_along() -> None:
    batch = causal_lm_collate(make_rows([2, 3]), pad_id=0)
    batch |= {"row_scores": torch.tensor([7.0, 8.0]), "states": torch.ones(2, 3, 4)}
    first, second = split_batch(batch, 3)
    assert (first["row_scores"].tolist(), second["row_scores"].tolist()) == ([7.0], [8.0])
    assert first["states"].shape == (1, 2, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_a_tensor_that_belongs_to_no_row_is_refused(packed: bool) -> None:
    rows = make_rows([2, 3])
    batch = flat_collate(rows) if packed else causal_lm_collate(rows, pad_id=0)
    batch["temperature"] = torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"temperature of shape \(\) can't be cut"):
        split_batch(batch, 3)


def test_parts_are_copies_without_gaps() -> None:
    batch = causal_lm_collate(make_rows([2, 3]), pad_id=0)
    assert all(t.is_contiguous() for part in split_batch(batch, 3) for t in part.values())
