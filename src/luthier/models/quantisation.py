"""QLoRA's frozen base in 4 or 8 bits, through bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from luthier.contracts.notice import Notice
from luthier.core.errors import MissingExtraError
from luthier.models.settings import QuantizationSettings

if TYPE_CHECKING:
    import torch


def quantisation_config(
    settings: QuantizationSettings, device: torch.device, compute_dtype: torch.dtype
) -> tuple[Any | None, Notice | None]:
    """Return transformers' quantisation settings, or None for plain weights.

    Args:
        settings: What the user asked for.
        device: Where the model will be.
        compute_dtype: The run's type, which `bnb_4bit_compute_dtype: auto` stands for.

    Returns:
        The settings, and a notice where quantisation was implied by a `bnb_4bit_...` setting
        but bitsandbytes is not installed.

    Raises:
        MissingExtraError: `quantization_bit` is set and bitsandbytes is not installed.
    """
    if settings.bits is None:
        return None, None
    if importlib.util.find_spec("bitsandbytes") is None:
        if settings.is_firm:
            raise MissingExtraError.of("bitsandbytes", "bnb", f"quantization_bit: {settings.bits}")
        reason = "bitsandbytes is not installed: pip install 'luthier[bnb]'"
        return None, Notice("bnb_4bit_quant_type", "4-bit base", "plain base", reason)
    import torch
    from transformers import BitsAndBytesConfig

    if settings.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True), None
    name = settings.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=compute_dtype if name == "auto" else getattr(torch, name),
        bnb_4bit_use_double_quant=settings.bnb_4bit_use_double_quant,
    ), None


def train_safely_quantised(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking weights for inference on CPUs with AVX512-BF16.

    Any forward pass without gradients would repack them there, after which training gradients are
    wrong without an error (seen with bitsandbytes 0.50.2: cosine 0.18 to the right gradient). An
    evaluation before training is enough to do it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
