"""The ways to compute one layer's attention agree with each other, whichever is taken."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from luthier.models import segment_kernels
from luthier.models.segment_kernels import LayerAttention, SharedPrefixes

LENGTHS = [5, 1, 19, 4]
SHARED = [0, 3, 0, 7]
"""How many tokens of the segment before it each segment sees beside itself."""


def make_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, sum(LENGTHS), heads, 8).transpose(1, 2).requires_grad_()
        for heads in (4, 2, 2)
    )
    return query, key, value


def make_layer(**asked: Any) -> LayerAttention:
    wishes: dict[str, Any] = {
        "scale": 0.4,
        "dropout": 0.0,
        "window": None,
        "softcap": None,
        "sinks": None,
    }
    return LayerAttention(**(wishes | asked))


def make_ends() -> torch.Tensor:
    return torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)


def make_prefixes() -> SharedPrefixes:
    key_lengths = [length + shared for length, shared in zip(LENGTHS, SHARED, strict=True)]
    tokens: list[int] = []
    for number, (start, end) in enumerate(pairwise(make_ends().tolist())):
        before = int(make_ends()[max(0, number - 1)])
        tokens += [*range(before, before + SHARED[number]), *range(start, end)]
    key_ends = torch.tensor([0, *key_lengths]).cumsum(0).to(torch.int32)
    return SharedPrefixes(key_ends, max(key_lengths), torch.tensor(tokens))


def reference(
    layer: LayerAttention, tensors: Sequence[torch.Tensor], shared: Sequence[int] = (0, 0, 0, 0)
) -> torch.Tensor:
    """Everything at once, with a T x T mask; returns (1, T, H, D)."""
    query, key, value = tensors
    num_tokens, num_before = sum(LENGTHS), 0
    distance = torch.full((num_tokens, num_tokens), -1)
    for number, (start, end) in enumerate(pairwise(make_ends().tolist())):
        position = torch.arange(shared[number], shared[number] + end - start)
        distance[start:end, start:end] = position[:, None] - position[None]
        seen = torch.arange(shared[number])
        before = slice(num_before, num_before + shared[number])
        distance[start:end, before] = position[:, None] - seen[None]
        num_before = start
    mask = distance >= 0
    if layer.window is not None:
        mask &= distance < layer.window
    key, value = (x.repeat_interleave(2, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * layer.scale
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    exponents = scores.masked_fill(~mask, float("-inf")).exp()
    total = exponents.sum(-1, keepdim=True)
    if layer.sinks is not None:
        total = total + layer.sinks.exp()[None, :, None, None]
    return (exponents / total @ value).transpose(1, 2)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"window": 1},
        {"window": 4},
        {"window": 19},
        {"softcap": 1.5},
        {"softcap": 1.5, "window": 3},
        {"sinks": torch.tensor([-1.0, 0.0, 1.0, 2.0])},
    ],
    ids=str,
)
@pytest.mark.parametrize("shares", [False, True])
def test_segments_equal_one_product_with_a_mask(asked: dict[str, Any], shares: bool) -> None:
    layer, tensors = make_layer(**asked), make_inputs()
    found = layer.segments(*tensors, make_ends(), None, make_prefixes() if shares else None)
    expected = reference(layer, tensors, SHARED if shares else (0, 0, 0, 0))
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, upstream),
        torch.autograd.grad(expected, tensors, upstream),
    )


@pytest.mark.parametrize(
    ("dtype", "length", "asked", "is_plain"),
    [
        (torch.bfloat16, 500, {}, True),
        (torch.bfloat16, 20, {"dropout": 0.1}, False),
        (torch.bfloat16, 20, {"window": 19}, False),
        (torch.bfloat16, 20, {"window": 20}, True),
        (torch.float32, 20, {}, True),
    ],
)
def test_plain_segments_on_a_cpu_have_their_own_way(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    length: int,
    asked: dict[str, Any],
    is_plain: bool,
) -> None:
    calls: list[int] = []
    plain = segment_kernels.causal_attention

    def count(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return plain(*arguments)

    monkeypatch.setattr(segment_kernels, "causal_attention", count)
    query, key = (torch.randn(1, heads, length, 8, dtype=dtype) for heads in (4, 2))
    ends = torch.tensor([0, length], dtype=torch.int32)
    found = make_layer(**asked).segments(query, key, key, ends, None)
    assert found.shape == (1, length, 4, 8)
    assert found.dtype == dtype
    assert bool(calls) == is_plain


def test_a_lone_query_sees_the_whole_cache_and_more_see_its_beginning() -> None:
    # As SDPA is called: one token that is generated, or a prompt over an empty static cache.
    query, key = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 9, 8)
    layer = make_layer(softcap=1e4)
    found = layer.by_scores(query, key, key, None)
    expected = F.scaled_dot_product_attention(query, key, key, scale=0.4, enable_gqa=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    query = torch.randn(2, 4, 5, 8)
    found = layer.by_scores(query, key, key, None)
    expected = F.scaled_dot_product_attention(
        query, key[:, :, :5], key[:, :, :5], scale=0.4, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_window_costs_two_windows_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    scores: list[int] = []
    sdpa = F.scaled_dot_product_attention

    def count(query: torch.Tensor, key: torch.Tensor, *rest: Any, **asked: Any) -> torch.Tensor:
        scores.append(query.shape[2] * key.shape[2])
        return sdpa(query, key, *rest, **asked)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    query, key = torch.randn(1, 4, 100, 8), torch.randn(1, 2, 100, 8)
    ends = torch.tensor([0, 100], dtype=torch.int32)
    make_layer(window=10).segments(query, key, key, ends, None)
    assert sum(scores) <= 100 * 20


def test_ends_that_do_not_fit_the_row_are_refused() -> None:
    ends = torch.tensor([0, 3], dtype=torch.int32)
    with pytest.raises(ValueError, match="segments of 3 tokens in a row of 29"):
        make_layer().segments(*make_inputs(), ends, None)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("longest", [None, 19])
@pytest.mark.parametrize("shares", [False, True])
def test_the_variable_length_kernel_is_asked_for_the_same(
    monkeypatch: pytest.MonkeyPatch, window: int | None, longest: int | None, shares: bool
) -> None:
    """Stands in for the kernel by its documented meaning; the `gpu` tests run the kernel itself."""

    def varlen_attn(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> torch.Tensor:
        assert (max_q, max_k, enable_gqa) == (19, 19, True)
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        left, right = window_size
        assert right == 0
        outputs: list[torch.Tensor] = []
        segments = zip(pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True)
        for (start, end), (first, last) in segments:
            token = torch.arange(last - first)
            distance = token[start - end :, None] - token[None]
            mask = (distance >= 0) & ((distance <= left) | (left == -1))
            rows = [query[start:end], key[first:last], value[first:last]]
            rows = [x.transpose(0, 1)[None] for x in rows]
            output = F.scaled_dot_product_attention(
                rows[0], rows[1], rows[2], attn_mask=mask, scale=scale, enable_gqa=True
            )
            outputs.append(output[0].transpose(0, 1))
        return torch.cat(outputs)

    layer, tensors = make_layer(window=window), make_inputs()
    assert not layer._fits_varlen(tensors[0], tensors[2])
    prefixes = make_prefixes() if shares else None
    expected = layer.segments(*tensors, make_ends(), longest, prefixes)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(LayerAttention, "_fits_varlen", lambda *_: True)
    found = layer.segments(*tensors, make_ends(), longest, prefixes)
    torch.testing.assert_close(found, expected)


def test_torch_has_the_variable_length_kernel_as_it_is_called() -> None:
    assert segment_kernels._has_varlen()
