"""Which parameters share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from luthier.core.errors import SettingsError
from luthier.models.module_names import layer_number
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning

LR_SCALE = "lr_scale"
"""Key of a group that says what the run's learning rate is multiplied by in it; without it, 1."""


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, scales: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Split the trained parameters into those that decay (matrices) and those that do not.

    Args:
        model: Parameters with `requires_grad` are trained.
        weight_decay: Of the matrices.
        scales: By the names of parameters, what their learning rate is multiplied by; 1 where
            there is no name. Each scale has its own two groups, the smallest first.
    """
    scales = scales or {}
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for scale in sorted({scales.get(name, 1.0) for name, _ in trained} or {1.0}):
        own = [p for name, p in trained if scales.get(name, 1.0) == scale]
        key = {} if scale == 1.0 else {LR_SCALE: scale}
        decaying = [p for p in own if p.ndim >= 2]
        others = [p for p in own if p.ndim < 2]
        groups.append({"params": decaying, "weight_decay": weight_decay, **key})
        groups.append({"params": others, "weight_decay": 0.0, **key})
    return groups


def lr_scales(
    model: torch.nn.Module, tuning: LoraTuning | FullTuning | FreezeTuning
) -> dict[str, float]:
    """Return what the learning rate of single parameters is multiplied by, as the settings say.

    Args:
        model: With its adapters, if it gets any.
        tuning: `loraplus_lr_ratio` or `layerwise_lr_decay`, if anything.

    Raises:
        SettingsError: `layerwise_lr_decay` is set, and no layers are found.
    """
    if isinstance(tuning, LoraTuning):
        return _lora_plus(model, tuning.loraplus_lr_ratio) if tuning.loraplus_lr_ratio else {}
    return _layerwise(model, tuning.layerwise_lr_decay) if tuning.layerwise_lr_decay else {}


def _lora_plus(model: torch.nn.Module, ratio: float) -> dict[str, float]:
    """Return the ratio for every B, and as in peft for vectors (DoRA's magnitudes).

    Source: LoRA+, arXiv 2402.12354; groups as peft.optimizers.create_loraplus_optimizer has them.
    """
    return {n: ratio for n, p in model.named_parameters() if "lora_B" in n or p.ndim == 1}


def _layerwise(model: Any, decay: float) -> dict[str, float]:
    """Return decay^k for the k-th layer from the top; embeddings stand below all layers.

    Source: ULMFiT, arXiv 1801.06146, section 3.2; counted as in ELECTRA, arXiv 2003.10555: head and
    last norm have k = 0, and the last layer k = 1. A head that is tied to the embeddings is these.
    """
    numbers = {name: layer_number(name) for name, _ in model.named_parameters()}
    num_layers = 1 + max((n for n in numbers.values() if n is not None), default=-1)
    if not num_layers:
        raise SettingsError(
            f"layerwise_lr_decay is set, and {type(model).__name__} has no numbered layers",
            mend="Take it out.",
        )
    embedding = model.get_input_embeddings().weight
    scales = {n: decay ** (num_layers - k) for n, k in numbers.items() if k is not None}
    below = decay ** (num_layers + 1)
    return scales | {name: below for name, p in model.named_parameters() if p is embedding}
