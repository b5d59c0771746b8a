"""The optimiser over the parameters that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch

from luthier.core.errors import MissingExtraError, SettingsError
from luthier.engine.lion import Lion
from luthier.engine.muon import MUON, MuonWithAdamW, split_by_kind
from luthier.engine.parameter_groups import LR_SCALE, parameter_groups
from luthier.engine.schedule_free import ScheduleFreeAdamW
from luthier.engine.settings import (
    AdafactorOptimizer,
    AdamNumbers,
    AdamW8bitOptimizer,
    AdamWOptimizer,
    AnyOptimizer,
    Lion8bitOptimizer,
    LionOptimizer,
    MuonOptimizer,
    ScheduleFreeOptimizer,
)
from luthier.models.module_names import layer_number

STATES = {"adamw_torch": 2, "lion": 1, "muon": 1, "adafactor": 0, "schedule_free_adamw": 2}
"""Numbers that an optimiser keeps for each one that it trains, in the type of the parameters:
adafactor keeps but a row and a column of each matrix, and muon two for what AdamW trains."""
STATES_8BIT = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1}
"""The same in bytes."""


def build_optimizer(
    model: torch.nn.Module,
    settings: AnyOptimizer,
    *,
    learning_rate: float,
    weight_decay: float,
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Build the optimiser.

    Args:
        model: Parameters with `requires_grad` are trained.
        settings: Which optimiser.
        learning_rate: The highest rate; the schedule sets each step's own.
        weight_decay: For matrices; biases and norms (one dimension) get none.
        scales: What the rate of single parameters is multiplied by; `lr_scales` knows it.

    Raises:
        SettingsError: Nothing is trainable.
        MissingExtraError: An 8-bit optimiser is asked for and bitsandbytes is not installed.
    """
    groups = parameter_groups(model, weight_decay, scales)
    if not any(group["params"] for group in groups):
        raise SettingsError(
            "no parameter of the model is trainable",
            mend="Check finetuning_type and the modules that it names.",
        )
    if isinstance(settings, AdafactorOptimizer):
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=learning_rate, scale_parameter=False, relative_step=False)
    if isinstance(settings, LionOptimizer):
        betas = (settings.lion_beta1, settings.lion_beta2)
        return Lion(groups, lr=learning_rate, betas=betas)
    if isinstance(settings, AdamWOptimizer):
        return torch.optim.AdamW(groups, lr=learning_rate, **_adamw(settings, model))
    if isinstance(settings, MuonOptimizer):
        split = split_by_kind(groups, hidden_matrices(model))
        momentum = {"momentum": settings.muon_momentum}
        return MuonWithAdamW(split, learning_rate, momentum, _adamw(settings, model))
    if isinstance(settings, ScheduleFreeOptimizer):
        return ScheduleFreeAdamW(groups, lr=learning_rate, **_betas(settings))
    bnb = _bitsandbytes(settings.optim).optim
    if isinstance(settings, Lion8bitOptimizer):
        betas = (settings.lion_beta1, settings.lion_beta2)
        return bnb.Lion8bit(groups, lr=learning_rate, betas=betas)
    maker = bnb.AdamW8bit if isinstance(settings, AdamW8bitOptimizer) else bnb.PagedAdamW8bit
    return maker(groups, lr=learning_rate, **_betas(settings))


def hidden_matrices(model: torch.nn.Module) -> set[int]:
    """Return the ids of the trained matrices within layers: no embedding, no head.

    The experts of a mixture that are stacked in three dimensions are none: torch's Muon takes two.
    """
    return {
        id(parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and layer_number(name) is not None
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_SCALE, 1.0)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the memory that the first step will take for good, such as AdamW's two moments.

    A state that is there is counted already.
    """
    if optimizer.state:
        return 0
    return sum(
        p.numel() * _bytes_per_number(optimizer, group, p)
        for group in optimizer.param_groups
        for p in group["params"]
    )


def _bytes_per_number(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: torch.Tensor
) -> int:
    if isinstance(optimizer, torch.optim.AdamW):
        return STATES["adamw_torch"] * parameter.element_size()
    if isinstance(optimizer, MuonWithAdamW):
        kind = "muon" if group["kind"] == MUON else "adamw_torch"
        return STATES[kind] * parameter.element_size()
    if isinstance(optimizer, Lion):
        return STATES["lion"] * parameter.element_size()
    if isinstance(optimizer, ScheduleFreeAdamW):
        return STATES["schedule_free_adamw"] * parameter.element_size()
    # bitsandbytes' classes, by name: its module may not be there.
    known = {"AdamW8bit": "adamw_8bit", "PagedAdamW8bit": "adamw_8bit", "Lion8bit": "lion_8bit"}
    return STATES_8BIT.get(known.get(type(optimizer).__name__, ""), 0)


def _adamw(settings: AdamNumbers, model: torch.nn.Module) -> dict[str, Any]:
    return {**_betas(settings), "fused": _has_fused(model)}


def _betas(settings: AdamNumbers) -> dict[str, Any]:
    return {"betas": (settings.adam_beta1, settings.adam_beta2), "eps": settings.adam_epsilon}


def _bitsandbytes(optim: str) -> Any:
    try:
        return import_module("bitsandbytes")
    except ImportError:
        raise MissingExtraError.of("bitsandbytes", "bnb", f"optim: {optim}") from None


def _has_fused(model: torch.nn.Module) -> bool:
    return all(p.device.type in ("cuda", "cpu") for p in model.parameters() if p.requires_grad)
