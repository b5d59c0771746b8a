"""Which models llama.cpp computes as transformers does, and what its files have to say of them.

In: a model's configuration. Out: an `Architecture` and its hyperparameters as GGUF keys, or an
error by name. A setting that llama.cpp has no key for is refused: the file would load and answer
differently.

Source of the keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's
conversion/llama.py, qwen.py, gemma.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.errors import ModelError

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What GGUF calls a family of models, and how its tensors differ from those of transformers.

    Attributes:
        name: llama.cpp's.
        pairs_rope: Whether llama.cpp rotates neighbouring numbers of q and k in pairs, where
            transformers rotates the two halves of a head: rows change places.
        norm_shift: Added to the weights of norms, which transformers adds as it computes.
        activations: Those that llama.cpp computes for it.
        sliding_period: Every so manieth layer looks at everything, the others at a window; 0 where
            no layer has a window.
        scale_by_width_at: Number of layers from which llama.cpp concludes that attention is scaled
            by the width over the heads and not by the size of a head.
    """

    name: str
    pairs_rope: bool = False
    norm_shift: float = 0.0
    activations: tuple[str, ...] = ("silu",)
    sliding_period: int = 0
    scale_by_width_at: int = 0


_GELU = ("gelu_pytorch_tanh", "gelu_new")
ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", pairs_rope=True),
    "MistralForCausalLM": Architecture("llama", pairs_rope=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
    # transformers computes Gemma 1 with the tanh form whichever its old config names.
    "GemmaForCausalLM": Architecture("gemma", norm_shift=1.0, activations=(*_GELU, "gelu")),
    "Gemma2ForCausalLM": Architecture(
        "gemma2", norm_shift=1.0, activations=_GELU, sliding_period=2, scale_by_width_at=46
    ),
    "Gemma3ForCausalLM": Architecture(
        "gemma3", norm_shift=1.0, activations=_GELU, sliding_period=6, scale_by_width_at=62
    ),
}
"""By the name that config.json gives."""


def architecture_of(config: Config) -> Architecture:
    """Return the architecture of a model, by its config.json.

    Raises:
        ModelError: It is not one of `ARCHITECTURES`, or has a setting that llama.cpp can't be told.
    """
    names: Sequence[str] = config.get("architectures") or ["unknown"]
    found = ARCHITECTURES.get(names[0])
    if found is None:
        raise ModelError(
            f"luthier writes no GGUF of a {names[0]}",
            where="config.json",
            mend=f"Known: {', '.join(ARCHITECTURES)}. Others may be in llama.cpp's own "
            "convert_hf_to_gguf.py: export with --to hf and give it that folder.",
        )
    problem = _unknown_setting(found, config)
    if problem is not None:
        raise ModelError(
            f"llama.cpp's {found.name} can't compute {problem}",
            where="config.json",
            mend="Export another format: --to hf.",
        )
    return found


def _unknown_setting(architecture: Architecture, config: Config) -> str | None:
    activation = config.get("hidden_activation") or config.get("hidden_act")
    if activation and activation not in architecture.activations:
        return f"the activation {activation!r}"
    if architecture.name == "gemma" and config.get("tie_word_embeddings") is False:
        return "an output layer apart from the embedding"
    period, kinds = architecture.sliding_period, config.get("layer_types")
    if period and kinds and list(kinds) != _layer_types(len(kinds), period):
        return f"windows in other layers than all but every {period}th"
    return _unknown_scale(architecture, config)


def _unknown_scale(architecture: Architecture, config: Config) -> str | None:
    scale = config.get("query_pre_attn_scalar")
    if scale is None or not architecture.scale_by_width_at:
        return None
    expected = config.get("head_dim")
    if config["num_hidden_layers"] == architecture.scale_by_width_at:
        expected = config["hidden_size"] // config["num_attention_heads"]
    return None if scale == expected else f"a query_pre_attn_scalar of {scale} (only {expected})"


def _layer_types(num_layers: int, period: int) -> list[str]:
    every = range(1, num_layers + 1)
    return ["sliding_attention" if layer % period else "full_attention" for layer in every]


def head_size(config: Config) -> int:
    """Return the size of an attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def context_length(architecture: Architecture, config: Config) -> int:
    """Return up to which length llama.cpp computes as transformers does.

    A window that llama.cpp doesn't know for this architecture makes no difference within it.
    """
    length, window = config["max_position_embeddings"], config.get("sliding_window")
    has_window = window is not None and config.get("use_sliding_window", True)
    return min(length, window) if has_window and not architecture.sliding_period else length


def write_hyperparameters(writer: Any, architecture: Architecture, config: Config) -> None:
    """Write the sizes of a model.

    Args:
        writer: A gguf.GGUFWriter.
        architecture: From `architecture_of`.
        config: With all defaults filled in.
    """
    num_heads = config["num_attention_heads"]
    writer.add_context_length(context_length(architecture, config))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or num_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if architecture.sliding_period:
        writer.add_sliding_window(config["sliding_window"])
    if limit := config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(limit)
    if limit := config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(limit)
