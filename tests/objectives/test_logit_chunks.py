"""Chunks and tiles: bounded, complete, and without effect on the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from luthier.objectives import logit_chunks
from luthier.objectives.logit_chunks import (
    CHUNK_ELEMENTS,
    Gradients,
    LogitRule,
    Product,
    _chunks,
    score_rows,
)


def random_rows(
    num_rows: int = 23, width: int = 7, size: int = 31
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_rows, width, generator=random)
    weight = torch.randn(size, width, generator=random)
    return hidden, weight, torch.randint(0, size, (num_rows,), generator=random)


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(0, 5000), size=st.integers(1, 300_000), rows=st.none() | st.integers(1, 99)
)
def test_chunks_cover_every_row_once_and_stay_bounded(
    num_rows: int, size: int, rows: int | None
) -> None:
    chunks = list(_chunks(num_rows, size, rows))
    assert [i for chunk in chunks for i in range(chunk.start, chunk.stop)] == list(range(num_rows))
    longest = max((chunk.stop - chunk.start for chunk in chunks), default=0)
    assert longest <= (rows or max(1, CHUNK_ELEMENTS // size))
    # Nearly one size each, none empty.
    assert all(longest - (chunk.stop - chunk.start) <= 1 for chunk in chunks)


@pytest.mark.parametrize("chunk_rows", [1, 2, 5, 22, 23, 100])
@pytest.mark.parametrize("tile_elements", [1, 70, 10_000])
def test_chunks_and_tiles_leave_the_numbers_alone(
    chunk_rows: int, tile_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_chunks, "TILE_ELEMENTS", tile_elements)
    hidden, weight, targets = random_rows()
    factors = torch.rand(len(targets))
    room = Gradients([torch.full_like(hidden, 9.0)], [torch.full_like(weight, 9.0)], None)
    rule = LogitRule(chunk_rows=chunk_rows)
    scores = score_rows([Product(hidden, weight)], None, targets, rule, factors, room)

    hidden.requires_grad_()
    weight.requires_grad_()
    logits = hidden @ weight.t()
    losses = F.cross_entropy(logits, targets, reduction="none")
    grads = torch.autograd.grad((losses * factors).sum(), [hidden, weight])
    torch.testing.assert_close(scores.losses, losses.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(scores.correct, logits.argmax(-1) == targets)
    assert scores.correct.any()
    torch.testing.assert_close([room.inputs[0], room.matrices[0]], list(grads))


def test_no_rows_overwrite_gradients_with_zeros() -> None:
    hidden, weight, targets = random_rows()
    room = Gradients(
        [torch.ones(0, hidden.shape[1])], [torch.ones_like(weight)], torch.ones(len(weight))
    )
    products = [Product(hidden[:0], weight)]
    scores = score_rows(products, None, targets[:0], LogitRule(), torch.ones(0), room)
    assert scores.losses.shape == scores.correct.shape == (0,)
    assert room.matrices[0] is not None
    assert room.bias is not None
    assert not room.matrices[0].any()
    assert not room.bias.any()


def test_of_equal_logits_the_first_wins_as_in_argmax() -> None:
    weight = torch.ones(6, 2)
    weight[1] = 2.0
    weight[4] = 2.0  # Tokens 1 and 4 share the highest logit in every row.
    targets = torch.tensor([1, 4, 0, 1])
    scores = score_rows([Product(torch.ones(4, 2), weight)], None, targets, LogitRule())
    assert scores.correct.tolist() == [True, False, False, True]


def test_losses_of_extreme_logits_stay_finite_and_exact() -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [0.0, 0.0, 88.0]])
    targets = torch.tensor([1, 0])
    scores = score_rows([Product(logits, torch.eye(3))], None, targets, LogitRule())
    assert scores.losses.tolist() == [600.0, 88.0]


def test_chunks_of_many_rows_come_in_whole_blocks() -> None:
    assert [c.stop - c.start for c in _chunks(1000, 49_152, None)] == [250] * 4
    assert [c.stop - c.start for c in _chunks(4096, 8192, None)] == [2048] * 2
    assert max(c.stop - c.start for c in _chunks(4096, 262_144, None)) == 64
