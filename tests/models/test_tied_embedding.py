"""A sparse gradient of the embedding ends as the full one that it would have been."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch

from luthier.models.tied_embedding import use_sparse_gradient

IDS = torch.tensor([[3, 4, 3, 5, 0, 0]])
MakeModel = Callable[..., Any]


def gradients(model: Any, num_batches: int) -> dict[str, torch.Tensor]:
    for shift in range(num_batches):
        ids = IDS + shift
        model(ids, labels=ids).loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("num_batches", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_gradient_is_the_full_one(make_model: MakeModel, kind: str, num_batches: int) -> None:
    model = make_model(kind, tie_word_embeddings=True)
    usual = deepcopy(model)
    assert use_sparse_gradient(model)
    found = gradients(model, num_batches)
    assert not any(gradient.is_sparse for gradient in found.values())
    torch.testing.assert_close(found, gradients(usual, num_batches))


def test_an_optimiser_never_sees_a_sparse_gradient(make_model: MakeModel) -> None:
    model = make_model(tie_word_embeddings=True)
    usual = deepcopy(model)
    assert use_sparse_gradient(model)
    for one in (model, usual):
        one.model(IDS).last_hidden_state.square().sum().backward()
    weight, expected = model.lm_head.weight, usual.lm_head.weight
    assert not weight.grad.is_sparse
    torch.testing.assert_close(weight.grad, expected.grad)


def test_no_table_of_zeros_is_made(make_model: MakeModel) -> None:
    embedding = make_model(tie_word_embeddings=True).get_input_embeddings()
    embedding.sparse = True
    (gradient,) = torch.autograd.grad(embedding(IDS).sum(), embedding.weight)
    assert gradient.is_sparse
    assert gradient._nnz() == 4  # the padding token has none


@pytest.mark.parametrize("why", ["untied", "frozen"])
def test_it_is_left_where_nothing_is_won(make_model: MakeModel, why: str) -> None:
    model = make_model(tie_word_embeddings=why == "frozen")
    model.get_input_embeddings().weight.requires_grad_(why != "frozen")
    assert not use_sparse_gradient(model)
    assert not model.get_input_embeddings().sparse
