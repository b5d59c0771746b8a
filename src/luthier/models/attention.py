"""Choose the attention kernel: what was asked, what this machine has, and what is used."""

from __future__ import annotations

import importlib.util

from luthier.contracts.notice import Notice


def choose_attention(asked: str, device_type: str) -> tuple[str, Notice | None]:
    """Return the transformers name of an attention implementation.

    Args:
        asked: The setting: auto, fa2, sdpa or eager.
        device_type: `cuda`, `cpu` or `mps`.

    Returns:
        The name for `attn_implementation`, and a notice where it is not what was asked for.
    """
    if asked == "eager":
        return "eager", None
    if asked in ("auto", "sdpa"):
        return "sdpa", None
    if device_type != "cuda":
        reason = f"FlashAttention needs a CUDA GPU, this device is {device_type}"
    elif importlib.util.find_spec("flash_attn") is None:
        reason = "the package flash-attn is not installed: pip install flash-attn"
    else:
        return "flash_attention_2", None
    return "sdpa", Notice("flash_attn", "fa2", "sdpa", reason)
