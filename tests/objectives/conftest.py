"""A tiny Llama, and random batches of rows of different length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

VOCABULARY = 61


@pytest.fixture
def tiny_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


@pytest.fixture
def random_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """Make a right-padded batch in which about half of the tokens are supervised."""

    def make(lengths: tuple[int, ...] = (9, 5, 7), seed: int = 0) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        longest = max(lengths)
        ids = torch.randint(3, VOCABULARY, (len(lengths), longest), generator=random)
        chosen = torch.rand(ids.shape, generator=random) < 0.5
        real = torch.arange(longest) < torch.tensor(lengths)[:, None]
        chosen[:, 0], chosen[:, 1] = False, True
        return {
            "input_ids": ids.masked_fill(~real, 0),
            "labels": ids.masked_fill(~(chosen & real), -100),
            "attention_mask": real.long(),
        }

    return make


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Qwen3": {"tie_word_embeddings": False},
    "Gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 8.0},
    "HyperCLOVAX": {"logits_scaling": 0.5},
    "GPTNeoX": {},
    "Phi": {},
}
"""Tied, untied, softcap, factor, divisor, a factor named as the divisor, old names, a bias."""


@pytest.fixture
def family_model() -> Callable[[str], Any]:
    """Make a tiny model with random weights of a family, by the name of its classes."""
    import transformers

    def make(family: str) -> Any:
        config = getattr(transformers, f"{family}Config")(**{**SIZES, **FAMILIES[family]})
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()

    return make
