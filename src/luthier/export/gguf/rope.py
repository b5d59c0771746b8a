"""Rotary positions: how llama.cpp is told about them, and what it can't be told.

In: a configuration's rotary settings. Out: GGUF keys, and for Llama 3.1 a tensor of factors.

Source: llama.cpp's conversion/base.py (set_gguf_parameters), llama.py (generate_extra_tensors);
transformers' modeling_rope_utils.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from luthier.core.errors import ModelError
from luthier.export.gguf.architectures import head_size

if TYPE_CHECKING:
    import numpy as np

KINDS = ("default", "linear", "yarn", "llama3")
_YARN_KEYS = {
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"),
    *("beta_fast", "beta_slow", "partial_rotary_factor"),
}

Rope = Mapping[str, Any]


def rope_of(config: Mapping[str, Any]) -> tuple[Rope, Rope | None]:
    """Return the settings of layers that see everything, and of those with a window if they differ.

    Raises:
        ModelError: llama.cpp can't be told of such a scaling.
    """
    found: dict[str, Any] = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", config.get("rope_theta") or 10_000.0)
    local: Rope | None = None
    if "full_attention" in found:
        local = cast(Rope, found.get("sliding_attention"))
        found = dict(found["full_attention"])
    _refuse_scaling(found)
    if local is not None and _kind(local) != "default":
        raise _unknown("scaled positions in layers with a window")
    return found, local


def _kind(rope: Rope) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _refuse_scaling(rope: Rope) -> None:
    kind = _kind(rope)
    if kind not in KINDS:
        raise _unknown(f"positions scaled by {kind!r} (known: {', '.join(KINDS)})")
    if rope.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise _unknown("positions in only a part of a head")
    odd = {key for key, value in rope.items() if value is not None} - _YARN_KEYS
    if kind == "yarn" and odd:
        raise _unknown(f"yarn with {', '.join(sorted(odd))}")


def _unknown(what: str) -> ModelError:
    return ModelError(
        f"luthier can't tell llama.cpp of {what}",
        where="config.json: rope_parameters",
        mend="Export another format: --to hf.",
    )


def write_rope(writer: Any, config: Mapping[str, Any]) -> None:
    """Write the rotary settings of a model.

    Args:
        writer: A gguf.GGUFWriter.
        config: With all defaults filled in.

    Raises:
        ModelError: llama.cpp can't be told of such a scaling.
    """
    import gguf

    rope, local = rope_of(config)
    writer.add_rope_dimension_count(head_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if local is not None:
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if _kind(rope) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif _kind(rope) == "yarn":
        original = rope.get("original_max_position_embeddings")
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(original or config["max_position_embeddings"])
        if rope.get("beta_fast"):
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        if rope.get("beta_slow"):
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def rope_factors(config: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """Return by what each frequency is divided, float32 (head size / 2,); None if by nothing.

    Only Llama 3.1's scaling comes as a tensor: long waves are stretched, short ones are left.
    """
    import numpy as np

    rope, _ = rope_of(config)
    if _kind(rope) != "llama3":
        return None
    size = head_size(config)
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    old, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((old / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
