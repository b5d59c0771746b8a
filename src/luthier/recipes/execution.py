"""How a loaded model runs: whether it keeps its activations, and whether its layers are compiled.

Both change how a result is computed and not what it is, so neither is part of what a checkpoint
must agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from luthier.contracts.notice import Notice
from luthier.models.adapters import count_parameters
from luthier.models.compiled_layers import compile_layers, without_adapters
from luthier.recipes.frozen_layers import memory_to_come
from luthier.recipes.machine import available_memory
from luthier.recipes.memory_estimate import Computing, choose_recomputation, model_shape
from luthier.recipes.run_config import RunConfig

if TYPE_CHECKING:
    import torch

    from luthier.engine.precision import Precision
    from luthier.objectives.head import Head


def settle_execution(
    config: RunConfig,
    model: Any,
    head: Head | None,
    lengths: Sequence[int],
    *,
    device: torch.device,
    precision: Precision,
) -> tuple[Notice, ...]:
    """Make a model run as the settings and the memory ask. Call it last, before training.

    Args:
        config: All settings.
        model: What is trained, on its device; changed in place.
        head: Its head, if it could be found: then the loss needs no full logits.
        lengths: Tokens of each training row.
        device: Where it is.
        precision: What it computes in.

    Returns:
        What was chosen where that was left to auto, and what could not be had.
    """
    computing = Computing(
        value_bytes=precision.dtype.itemsize,
        device_type=device.type,
        available_bytes=available_memory(device) - memory_to_come(head),
        full_logits=head is None,
    )
    shape = model_shape(model, count_parameters(model))
    recompute, notice = choose_recomputation(config, shape, lengths, computing, is_loaded=True)
    if recompute:
        _recompute_activations(model)
    compile_notice = compile_layers(model, device) if config.model.torch_compile else None
    return tuple(found for found in (notice, compile_notice) if found is not None)


def _recompute_activations(model: Any) -> None:
    base = without_adapters(model)
    # transformers is renaming it; the old name warns where the new one is there.
    renamed = getattr(base, "activation_checkpointing_enable", None)
    (renamed or base.gradient_checkpointing_enable)({"use_reentrant": False})
