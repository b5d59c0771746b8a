"""Tiny models and their folders, a tied head (Gemma) among them; and a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def make_model() -> Callable[..., Any]:
    def make(kind: str = "llama", **config: Any) -> Any:
        import transformers as hf

        torch.manual_seed(0)
        sizes = {**SIZES, **config}
        if kind == "qwen2":
            return hf.Qwen2ForCausalLM(hf.Qwen2Config(**sizes))
        if kind == "qwen3":
            return hf.Qwen3ForCausalLM(hf.Qwen3Config(**sizes, head_dim=8))
        if kind == "gemma":
            return hf.GemmaForCausalLM(hf.GemmaConfig(**sizes, head_dim=8))
        if kind == "gemma3":
            return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**sizes, head_dim=8, sliding_window=8))
        if kind == "gpt2":
            return hf.GPT2LMHeadModel(
                hf.GPT2Config(vocab_size=32, n_positions=32, n_embd=16, n_layer=3, n_head=2)
            )
        return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes))

    return make


@pytest.fixture
def make_folder(make_model: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Save a tiny model and return its folder; keywords change its config.json afterwards."""

    def make(name: str = "tiny", kind: str = "llama", **config: Any) -> Path:
        folder = tmp_path / name
        make_model(kind).save_pretrained(str(folder))
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        return folder

    return make


@pytest.fixture
def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<end>", *(f"w{i}" for i in range(28))]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} <end>{% endfor %}"
    return tokenizer
