"""Which models are written as GGUF, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.export.gguf.architectures import architecture_of, context_length, head_size

GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "hidden_size": 2304,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
}


def test_an_unknown_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ModelError, match="luthier writes no GGUF of a BloomForCausalLM") as caught:
        architecture_of({"architectures": ["BloomForCausalLM"]})
    assert "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM" in str(caught.value.mend)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hidden_activation": "relu"}, "the activation 'relu'"),
        ({"query_pre_attn_scalar": 144}, "query_pre_attn_scalar of 144 .only 256."),
        ({"num_hidden_layers": 46}, "query_pre_attn_scalar of 256 .only 288."),
        ({"layer_types": ["full_attention"] * 2}, "windows in other layers than all but every 2th"),
    ],
)
def test_what_llama_cpp_can_not_be_told_is_refused(change: dict[str, Any], problem: str) -> None:
    assert architecture_of(GEMMA2).name == "gemma2"
    with pytest.raises(ModelError, match=f"llama.cpp's gemma2 can't compute .*{problem}"):
        architecture_of({**GEMMA2, **change})


def test_gemma_1_with_a_head_of_its_own_is_refused() -> None:
    config = {"architectures": ["GemmaForCausalLM"], "hidden_act": "gelu"}
    assert architecture_of({**config, "tie_word_embeddings": True}).norm_shift == 1
    with pytest.raises(ModelError, match="an output layer apart from the embedding"):
        architecture_of({**config, "tie_word_embeddings": False})


def test_a_window_that_llama_cpp_does_not_know_bounds_the_context() -> None:
    config = {
        "architectures": ["MistralForCausalLM"],
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
    }
    mistral = architecture_of(config)
    assert context_length(mistral, config) == 4096
    assert context_length(mistral, {**config, "sliding_window": None}) == 32768
    assert context_length(mistral, {**config, "use_sliding_window": False}) == 32768
    gemma = architecture_of(GEMMA2)
    assert context_length(gemma, {**config}) == 32768


def test_a_head_s_size_may_be_left_out() -> None:
    assert head_size({"hidden_size": 64, "num_attention_heads": 4, "head_dim": None}) == 16
    assert head_size({"hidden_size": 64, "num_attention_heads": 4, "head_dim": 32}) == 32
