"""Choose the attention kernel: what was asked, what this machine has, and what is used."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from luthier.contracts.notice import Notice

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def choose_attention(
    asked: str,
    device_type: str,
    *,
    packed: bool = False,
    config: PretrainedConfig | None = None,
) -> tuple[str, Notice | None]:
    """Return the transformers name of an attention implementation.

    Packed rows are computed segment by segment: by FlashAttention where it was asked for and can be
    had, else by `luthier_segments`, which serves batches that are not packed as `sdpa` does. Not by
    transformers' own `sdpa` or `eager`: those keep documents apart by a mask of T x T, and in
    classes whose mask is made without the position ids (gpt-oss, 5.23) not at all.

    Args:
        asked: The setting: auto, fa2, sdpa or eager.
        device_type: `cuda`, `cpu` or `mps`.
        packed: Whether training batches are packed rows.
        config: The model's config; needed where `packed` is set.

    Returns:
        The name for `attn_implementation`, and a notice where it is not what was asked for.

    Raises:
        ValueError: `packed` is set without a config, or for a model whose rows can't be packed
            (ask `packing_support` first).
    """
    if packed:
        return _choose_packed(asked, device_type, config)
    if asked == "eager":
        return "eager", None
    name = "sdpa" if config is None or _supports(config, "_supports_sdpa") else "eager"
    if asked in ("auto", name):
        return name, None
    if asked == "sdpa":
        return name, Notice(
            "flash_attn", asked, name, "the model's attention is more than SDPA can"
        )
    reason = _no_flash_attention(device_type)
    if reason is None:
        return "flash_attention_2", None
    return name, Notice("flash_attn", asked, name, reason)


def _choose_packed(
    asked: str, device_type: str, config: PretrainedConfig | None
) -> tuple[str, Notice | None]:
    from luthier.models.packing_support import packing_support
    from luthier.models.segments import SEGMENTS, register_segments

    if config is None:
        raise ValueError("packed rows need the model's config to choose an attention")
    support = packing_support(config)
    if support.kind == "none":
        raise ValueError(f"this model's rows can't be packed: {support.reason}")
    # Here, so that no name leaves this module that transformers doesn't know.
    register_segments()
    if asked in ("auto", "sdpa"):
        return SEGMENTS, None
    if asked == "eager":
        reason = "packed documents are computed one by one, without eager's T x T mask"
        return SEGMENTS, Notice("flash_attn", asked, "sdpa", reason)
    reason = _no_flash_attention(device_type) or _unfit_for_flash_attention(config)
    if reason is None:
        return "flash_attention_2", None
    return SEGMENTS, Notice("flash_attn", asked, "sdpa", reason)


def _no_flash_attention(device_type: str) -> str | None:
    if device_type != "cuda":
        return f"FlashAttention needs a CUDA GPU, this device is {device_type}"
    if importlib.util.find_spec("flash_attn") is None:
        return "the package flash-attn is not installed: pip install flash-attn"
    return None


def _unfit_for_flash_attention(config: PretrainedConfig) -> str | None:
    from luthier.models.packing_support import causal_class

    if "chunked_attention" in (getattr(config.get_text_config(), "layer_types", None) or ()):
        return "FlashAttention knows no chunked attention"
    kernels = getattr(causal_class(config), "_compatible_flash_implementations", None)
    if not _supports(config, "_supports_flash_attn") or (
        kernels and "flash_attention_2" not in kernels
    ):
        return "transformers has no FlashAttention 2 for this model"
    return None


def _supports(config: PretrainedConfig, flag: str) -> bool:
    from luthier.models.packing_support import causal_class

    return bool(getattr(causal_class(config), flag, True))
