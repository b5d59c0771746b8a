"""Liger's kernels (arXiv 2410.10989) in the layers of a loaded model, on a GPU.

Norms, rotary positions and activations become Triton kernels: fewer passes over memory, less kept
for the backward pass. Its fused cross-entropy stays out: luthier's own loss lets only the tokens
that carry loss meet the head.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from luthier.contracts.notice import Notice
from luthier.core.errors import MissingExtraError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NOT_OURS = ("fused_linear_cross_entropy", "cross_entropy")
"""Kernels of the loss, which Liger would put in by itself."""


def use_liger_kernels(model: PreTrainedModel, device: torch.device) -> Notice | None:
    """Put Liger's kernels into a model.

    Liger also puts them into the modules of transformers that the model's class comes from, for
    the whole process: that is how it replaces the rotary positions.

    Args:
        model: As it was loaded, without adapters; changed in place. Names and parameters stay.
        device: Where it is.

    Returns:
        Why they are not used, or None if they are.

    Raises:
        MissingExtraError: The device could run them, and liger-kernel is not installed.
    """
    if device.type != "cuda":
        return _unused(f"Liger's kernels need a CUDA GPU, this device is {device.type}")
    if importlib.util.find_spec("liger_kernel") is None:
        raise MissingExtraError.of("liger-kernel", "liger", "use_liger_kernel: true")
    kind = model.config.model_type
    apply = _appliers().get(kind)
    if apply is None:
        return _unused(f"Liger has no kernels for models of type {kind}")
    known = inspect.signature(apply).parameters
    apply(model=model, **{name: False for name in NOT_OURS if name in known})
    return None


def _appliers() -> Mapping[str, Callable[..., Any]]:
    """Return Liger's functions that change a model, by the model's type."""
    monkey_patch: Any = importlib.import_module("liger_kernel.transformers.monkey_patch")
    return monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN


def _unused(reason: str) -> Notice:
    return Notice("use_liger_kernel", "true", "false", reason)
