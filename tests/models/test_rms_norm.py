"""The lighter RMSNorm: transformers' numbers, true gradients, and less kept."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from luthier.models.rms_norm import LightRMSNorm, lighten_norms


def norms(dtype: torch.dtype = torch.float32) -> tuple[LlamaRMSNorm, LightRMSNorm]:
    torch.manual_seed(0)
    usual = LlamaRMSNorm(16, eps=1e-3)
    usual.weight = torch.nn.Parameter(torch.randn(16, dtype=dtype))
    return usual, LightRMSNorm.of(deepcopy(usual))


def test_values_and_gradients_are_those_of_transformers() -> None:
    usual, light = norms()
    x = torch.randn(2, 7, 16, requires_grad=True)
    upstream = torch.randn(2, 7, 16)
    expected, found = usual(x), light(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(found, [x, light.weight], upstream),
        torch.autograd.grad(expected, [x, usual.weight], upstream),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_gradient_agrees_with_finite_differences() -> None:
    _, light = norms(torch.float64)
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(light, x)


def test_in_16_bits_the_values_are_the_same_bits() -> None:
    usual, light = norms(torch.bfloat16)
    x = torch.randn(50, 16).bfloat16()
    assert torch.equal(light(x), usual(x))


def test_under_autocast_the_result_has_the_type_of_the_products_after_it() -> None:
    usual, light = norms()
    x = torch.randn(50, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = usual(x), light(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16())
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.dtype == torch.float32


def test_only_the_input_and_a_number_a_token_are_kept() -> None:
    def kept(norm: torch.nn.Module) -> int:
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: saved.append(x.numel()) or x, lambda x: x
        ):
            norm(torch.randn(40, 16, requires_grad=True))
        return sum(saved)

    usual, light = norms()
    assert kept(light) == 40 * 16 + 16 + 40 < kept(usual)


@pytest.mark.parametrize(
    ("kind", "num_replaced"), [("llama", 5), ("qwen2", 5), ("qwen3", 9), ("gemma", 0)]
)
def test_a_model_keeps_its_names_and_its_numbers(
    make_model: Callable[..., Any], kind: str, num_replaced: int
) -> None:
    model = make_model(kind, num_hidden_layers=2)
    names = list(model.state_dict())
    ids = torch.arange(3, 11)[None]
    expected = model(ids).logits
    assert lighten_norms(model) == num_replaced
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert lighten_norms(model) == 0
