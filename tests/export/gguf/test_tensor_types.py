"""The mixes of llama.cpp's quantiser."""

from __future__ import annotations

import pytest

from luthier.export.gguf.tensor_types import BITS, FILE_TYPES, Mix


def types(kind: str, width: int = 4096, **about: bool) -> list[str]:
    """Return the types of a model's tensors of layer 5 of 32, which gets no more bits."""
    mix = Mix(kind, 32, about.pop("has_output", True), **about)
    parts = ("blk.5.attn_v.weight", "blk.5.ffn_down.weight", "blk.5.ffn_up.weight")
    names = (*parts, "token_embd.weight", "output.weight")
    return [mix.type_of(name, (8, width)) for name in names]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("F32", ["F32"] * 5),
        ("F16", ["F16"] * 5),
        ("BF16", ["BF16"] * 5),
        ("Q8_0", ["Q8_0"] * 5),
        ("Q6_K", ["Q6_K"] * 5),
        ("Q5_K_M", ["Q5_K"] * 4 + ["Q6_K"]),
        ("Q4_K_M", ["Q4_K"] * 4 + ["Q6_K"]),
        ("Q4_0", ["Q4_0"] * 4 + ["Q6_K"]),
    ],
)
def test_the_output_layer_gets_more_bits(kind: str, expected: list[str]) -> None:
    assert types(kind) == expected


def test_every_type_says_its_bits() -> None:
    assert list(BITS) == list(FILE_TYPES)


def test_the_layers_that_get_more_bits() -> None:
    mix = Mix("Q4_K_M", 30, has_output=False)
    names = [f"blk.{layer}.ffn_down.weight" for layer in range(30)]
    more = [layer for layer, name in enumerate(names) if mix.type_of(name, (8, 256)) == "Q6_K"]
    # The first and the last eighth, and every third layer between.
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]


def test_without_an_output_layer_the_embedding_is_it() -> None:
    assert types("Q4_K_M", has_output=False)[3] == "Q6_K"


def test_a_70b_has_more_bits_for_shared_values() -> None:
    assert types("Q4_K_M", is_70b=True)[0] == "Q5_K"


def test_rows_not_divisible_by_256_fall_back() -> None:
    assert types("Q4_K_M", 576) == ["Q5_0"] * 4 + ["Q8_0"]
    assert types("Q5_K_M", 576) == ["Q5_1"] * 4 + ["Q8_0"]
    assert types("Q6_K", 576) == ["Q8_0"] * 5
    assert types("Q4_0", 576) == ["Q4_0"] * 4 + ["Q8_0"]
    assert types("Q8_0", 40) == ["F16"] * 5


def test_norms_and_biases_stay_float32() -> None:
    mix = Mix("Q8_0", 2, has_output=True)
    assert mix.type_of("blk.0.attn_q.bias", (64,)) == "F32"
    assert mix.type_of("output_norm.weight", (64,)) == "F32"
    assert mix.type_of("blk.0.attn_norm.weight", (1, 64)) == "F32"
