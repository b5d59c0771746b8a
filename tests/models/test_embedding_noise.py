"""Noise of the right size on each document, in training alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from luthier.models.embedding_noise import add_embedding_noise, document_lengths

WIDTH, ALPHA = 16, 4.0


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 32,
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes))


class Seen:
    """The embeddings that the layers were given."""

    def __init__(self, model: Any) -> None:
        model.model.layers[0].register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, _layer: Any, args: Any, kwargs: Any) -> None:
        self.last = (args[0] if args else kwargs["hidden_states"]).detach().clone()


def noise_of(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """Return what the layers saw beyond the plain embeddings, (B, L, D)."""
    seen = Seen(model)
    model.model(**inputs, use_cache=False)
    return seen.last - model.get_input_embeddings().weight.detach()[inputs["input_ids"]]


def assert_uniform(noise: torch.Tensor, length: int) -> None:
    """Of many numbers of uniform noise the largest comes close to the bound, the mean to 0."""
    bound = ALPHA / (length * WIDTH) ** 0.5
    assert float(noise.abs().max()) <= bound * 1.0001
    assert float(noise.abs().max()) > 0.9 * bound
    assert float(noise.std()) == pytest.approx(bound / 3**0.5, rel=0.2)
    assert abs(float(noise.mean())) < 0.2 * bound


def test_padded_rows_get_noise_by_their_own_length(model: Any) -> None:
    add_embedding_noise(model, ALPHA)
    ids = torch.arange(60).view(2, 30) % 32
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 10:] = 0
    noise = noise_of(model.train(), input_ids=ids, attention_mask=mask)
    assert_uniform(noise[0], 30)
    assert_uniform(noise[1, :10], 10)
    assert not noise[1, 10:].any()


def test_packed_documents_get_noise_by_their_own_length(model: Any) -> None:
    add_embedding_noise(model, ALPHA)
    positions = torch.cat([torch.arange(8), torch.arange(1), torch.arange(40)])[None]
    ids = torch.arange(49)[None] % 32
    noise = noise_of(model.train(), input_ids=ids, position_ids=positions)
    assert_uniform(noise[0, :8], 8)
    assert float(noise[0, 8].abs().max()) <= ALPHA / WIDTH**0.5
    assert_uniform(noise[0, 9:], 40)


def test_without_mask_and_positions_a_row_is_a_document(model: Any) -> None:
    add_embedding_noise(model, ALPHA)
    assert_uniform(noise_of(model.train(), input_ids=torch.arange(32)[None]), 32)


def test_lengths() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [3, 4, 0, 0, 1]])
    assert document_lengths({"position_ids": positions}).tolist() == [  # type: ignore[union-attr]
        [3, 3, 3, 2, 2],
        [2, 2, 1, 2, 2],
    ]
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert document_lengths({"attention_mask": mask, "position_ids": None}).tolist() == [  # type: ignore[union-attr]
        [2, 2, 0],
        [3, 3, 3],
    ]
    assert document_lengths({"input_ids": mask}) is None


@pytest.mark.parametrize("lora", [False, True])
def test_noise_in_training_alone_and_by_torchs_generator(model: Any, lora: bool) -> None:
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    ids = torch.arange(12)[None]
    plain = copy.deepcopy(model)
    add_embedding_noise(model, ALPHA)
    assert torch.equal(model.eval()(ids).logits, plain.eval()(ids).logits)
    model.train()
    state = torch.get_rng_state()
    first, second = model(ids).logits, model(ids).logits
    torch.set_rng_state(state)
    assert torch.equal(model(ids).logits, first)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, plain.train()(ids).logits)
