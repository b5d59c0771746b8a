"""Attention as products of matrices: SDPA's numbers and true gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.models.cpu_attention import (
    BLOCK_TOKENS,
    KEPT_TOKENS,
    WHOLE_TOKENS,
    causal_attention,
)


def inputs(
    num_tokens: int, heads: int, kv_heads: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(num_tokens)
    # As a model lays them out: tokens before heads.
    query, key, value = (
        torch.randn(1, num_tokens, n, 8, dtype=dtype).transpose(1, 2).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    )
    return query, key, value


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 2), (3, 1)])
@settings(max_examples=15, deadline=None)
@given(num_tokens=st.integers(1, 40))
def test_it_gives_what_sdpa_gives(heads: int, kv_heads: int, num_tokens: int) -> None:
    agrees_with_sdpa(heads, kv_heads, num_tokens)


@pytest.mark.parametrize(
    "num_tokens", [WHOLE_TOKENS, WHOLE_TOKENS + 1, 4 * BLOCK_TOKENS, KEPT_TOKENS + 3]
)
def test_so_do_blocks_and_weights_that_are_computed_again(num_tokens: int) -> None:
    agrees_with_sdpa(2, 1, num_tokens)


def agrees_with_sdpa(heads: int, kv_heads: int, num_tokens: int) -> None:
    tensors = inputs(num_tokens, heads, kv_heads, torch.float64)
    found = causal_attention(*tensors, 0.3)
    expected = F.scaled_dot_product_attention(*tensors, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, upstream),
        torch.autograd.grad(expected, tensors, upstream),
    )


@pytest.mark.parametrize("num_keys", [WHOLE_TOKENS, WHOLE_TOKENS + 40, KEPT_TOKENS + 3])
@pytest.mark.parametrize("num_queries", [1, 30, BLOCK_TOKENS + 1])
def test_fewer_queries_than_keys_stand_at_their_end(num_keys: int, num_queries: int) -> None:
    whole, key, value = inputs(num_keys, 4, 2, torch.float64)
    query = whole[:, :, -num_queries:]
    found = causal_attention(query, key, value, 0.3)
    expected = F.scaled_dot_product_attention(
        whole, key, value, is_causal=True, scale=0.3, enable_gqa=True
    )[:, :, -num_queries:]
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, (whole, key, value), upstream),
        torch.autograd.grad(expected, (whole, key, value), upstream),
    )


def test_the_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(
        lambda q, k, v: causal_attention(q, k, v, 0.5), inputs(5, 4, 2, torch.float64)
    )


def test_in_16_bits_it_is_as_near_to_float32_as_sdpa() -> None:
    exact = inputs(200, 6, 2, torch.float32)
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    upstream = torch.randn(1, 6, 200, 8)

    def sdpa_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        query, key, value = tensors
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    results = [
        torch.autograd.grad(output, tensors, upstream.to(output.dtype))
        for output, tensors in (
            (sdpa_of(exact), exact),
            (sdpa_of(half), half),
            (causal_attention(half[0], half[1], half[2], 8**-0.5), half),
        )
    ]
    for expected, sdpa, found in zip(*results, strict=True):
        assert found.dtype == torch.bfloat16
        usual = float((sdpa.float() - expected).abs().mean())
        assert float((found.float() - expected).abs().mean()) < 1.5 * usual


def test_weights_of_a_long_segment_are_not_kept() -> None:
    def kept(num_tokens: int) -> int:
        tensors = inputs(num_tokens, 1, 1, torch.float32)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: saved.append(x.numel()) or x, lambda x: x
        ):
            causal_attention(*tensors, 1.0)
        return sum(saved) - 3 * num_tokens * 8

    assert 0 < kept(KEPT_TOKENS) < KEPT_TOKENS**2 * 0.6
    assert kept(KEPT_TOKENS + 1) == 0
