"""Rotary settings: what is told to llama.cpp, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luthier.core.errors import ModelError
from luthier.export.gguf.rope import rope_factors, rope_of

LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("rope", "problem"),
    [
        ({"rope_type": "longrope"}, "positions scaled by 'longrope' .known: default, linear"),
        ({"rope_type": "dynamic", "factor": 2.0}, "positions scaled by 'dynamic'"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "only a part of a head"),
        ({"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}, "yarn with mscale"),
        (
            {
                "full_attention": {"rope_type": "default"},
                "sliding_attention": {"rope_type": "linear", "factor": 2.0},
            },
            "scaled positions in layers with a window",
        ),
    ],
)
def test_what_llama_cpp_can_not_be_told_is_refused(rope: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=f"can't tell llama.cpp of .*{problem}"):
        rope_of({"rope_parameters": rope})


def test_the_older_layout_says_the_same() -> None:
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    rope, local = rope_of(old)
    assert rope == {"rope_theta": 5e5, "type": "linear", "factor": 4.0}
    assert local is None
    assert rope_of({})[0] == {"rope_theta": 10_000.0}


def test_factors_are_those_that_transformers_divides_by() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters=LLAMA31)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500_000.0 ** (-np.arange(0, 128, 2) / 128)
    factors = rope_factors(config.to_dict())
    assert factors is not None
    np.testing.assert_allclose(plain / factors, scaled.numpy(), rtol=1e-5)
    assert rope_factors({"rope_theta": 1e4, "head_dim": 8}) is None
