"""The operations of a token agree with the model's own parameters, and rates with their records."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from throughput_wall import (
    NOMINAL_TFLOPS,
    flops_per_token,
    matrices,
    measure,
    nominal_flops,
    products,
    rate,
)
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "vocab_size": 100,
}


@pytest.fixture
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**CONFIG))


def test_matrices_are_the_linear_layers_of_the_model(model: LlamaForCausalLM) -> None:
    body, head = matrices(CONFIG)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(m.parameters for m in (*body, head)) == sum(m.weight.numel() for m in linear)
    assert sum(m.count for m in (*body, head)) == len(linear)


def test_full_training_takes_six_a_parameter_and_the_head_by_its_share() -> None:
    body, head = matrices(CONFIG)
    num_body = sum(m.parameters for m in body)
    assert flops_per_token(CONFIG, "full", 1.0, 4) == 6 * (num_body + head.parameters)
    assert flops_per_token(CONFIG, "full", 0.5, 4) == 6 * num_body + 3 * head.parameters


def test_lora_counts_the_adapters_that_peft_makes(model: LlamaForCausalLM) -> None:
    body, head = matrices(CONFIG)
    base = sum(m.parameters for m in (*body, head))
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    adapters = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    assert flops_per_token(CONFIG, "lora", 1.0, 4) == 4 * base + 6 * adapters


def test_products_are_those_of_a_linear_layer() -> None:
    matrix = matrices(CONFIG)[0][1]
    shapes = {
        name: tuple(run().shape) for name, run in products(matrix, 7, torch.float32, "cpu").items()
    }
    assert shapes == {
        "forward": (7, matrix.outputs),
        "to inputs": (7, matrix.inputs),
        "to weights": (matrix.outputs, matrix.inputs),
    }


def test_measures_each_product_of_each_matrix() -> None:
    sizes = {"config": CONFIG, "tokens": 8, "supervised": 6}
    case = {**sizes, "precisions": ["fp32"], "device": "cpu", "each_s": 0.0}
    records = measure(case)
    body, head = matrices(CONFIG)
    assert len(records) == 3 * (len(body) + 1)
    assert all(record["seconds"] > 0 for record in records)
    by_head = [record["flops"] for record in records if record["matrix"] == "head"]
    assert by_head == [2 * 6 * head.parameters] * 3


def test_lora_needs_no_products_for_gradients_of_frozen_weights() -> None:
    records = [
        {"precision": "bf16", "product": product, "flops": 10, "seconds": seconds}
        for product, seconds in (("forward", 1.0), ("to inputs", 1.0), ("to weights", 8.0))
    ]
    assert rate(records, "bf16", "lora") == 10
    assert rate(records, "bf16", "full") == 3


def test_cards_are_found_by_name() -> None:
    assert nominal_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert nominal_flops("NVIDIA H100 PCIe") == 756e12
    assert nominal_flops("NVIDIA L4") == 121e12
    assert nominal_flops("NVIDIA L40S") == 362e12
    assert nominal_flops("") is None
    names = list(NOMINAL_TFLOPS)
    for at, name in enumerate(names):
        assert not any(earlier in name for earlier in names[:at]), f"{name} is never reached"
