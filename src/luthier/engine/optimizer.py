"""The optimiser over the parameters that are trained."""

from __future__ import annotations

from typing import Any

import torch

from luthier.core.errors import SettingsError
from luthier.engine.settings import AdafactorOptimizer, AdamWOptimizer


def build_optimizer(
    model: torch.nn.Module,
    settings: AdamWOptimizer | AdafactorOptimizer,
    *,
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Build the optimiser.

    Args:
        model: Parameters with `requires_grad` are trained.
        settings: Which optimiser.
        learning_rate: The highest rate; the schedule sets each step's own.
        weight_decay: For matrices; biases and norms (one dimension) get none.

    Raises:
        SettingsError: Nothing is trainable.
    """
    groups = parameter_groups(model, weight_decay)
    if not any(group["params"] for group in groups):
        raise SettingsError(
            "no parameter of the model is trainable",
            mend="Check finetuning_type and the modules that it names.",
        )
    if isinstance(settings, AdafactorOptimizer):
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=learning_rate, scale_parameter=False, relative_step=False)
    return torch.optim.AdamW(
        groups,
        lr=learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=_has_fused(model),
    )


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trained parameters into those that decay (matrices) and those that do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the memory that the first step will take for good: AdamW's two moments.

    Adafactor keeps but a row and a column of each matrix, and a state that is there is counted.
    """
    if optimizer.state or not isinstance(optimizer, torch.optim.AdamW):
        return 0
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    return 2 * sum(p.numel() * p.element_size() for p in trained)


def _has_fused(model: torch.nn.Module) -> bool:
    return all(p.device.type in ("cuda", "cpu") for p in model.parameters() if p.requires_grad)
