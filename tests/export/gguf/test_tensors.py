"""Names and rows of tensors, as llama.cpp has them; refusals are tested in test_writer.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from luthier.export.gguf.architectures import ARCHITECTURES
from luthier.export.gguf.tensors import PlannedTensor, plan_tensors, prepared

CONFIG = {"num_attention_heads": 2, "num_key_value_heads": 1}


def test_rows_of_a_head_s_halves_become_neighbours() -> None:
    rows = torch.arange(8.0)[:, None].bfloat16()
    llama = ARCHITECTURES["LlamaForCausalLM"]
    query = PlannedTensor("q", "blk.0.attn_q.weight", (8, 1))
    found = prepared(query, rows, llama, CONFIG)
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    key = PlannedTensor("k", "blk.0.attn_k.bias", (8,))
    assert prepared(key, rows[:, 0], llama, CONFIG).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    qwen = ARCHITECTURES["Qwen2ForCausalLM"]
    assert prepared(query, rows, qwen, CONFIG)[:, 0].tolist() == list(range(8))


def test_only_gemma_s_norms_are_shifted() -> None:
    ones = torch.ones(4)
    norm = PlannedTensor("n", "blk.0.attn_q_norm.weight", (4,))
    assert prepared(norm, ones, ARCHITECTURES["Gemma3ForCausalLM"], CONFIG).tolist() == [2] * 4
    assert prepared(norm, ones, ARCHITECTURES["Qwen3ForCausalLM"], CONFIG).tolist() == [1] * 4


def test_tensors_are_planned_in_the_order_of_the_files(make_source: Any) -> None:
    source = make_source("Qwen2", "qwen", tie_word_embeddings=True)
    planned = plan_tensors(source, ARCHITECTURES["Qwen2ForCausalLM"], source.config)
    assert [one.source for one in planned] == [name for name, _ in source.tensors()]
    assert [one.shape for one in planned] == [tuple(t.shape) for _, t in source.tensors()]
    names = {one.name for one in planned}
    assert {"token_embd.weight", "blk.2.attn_v.bias", "blk.0.ffn_gate.weight"} <= names
    assert "output.weight" not in names
