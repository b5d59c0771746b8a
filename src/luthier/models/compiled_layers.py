"""`torch_compile`: the layers of a model as compiled code, fused where memory is passed over twice.

Layer by layer, not the whole model: all layers run the same code, so it is compiled once and the
first step comes sooner. Sizes are symbols, so that a batch of another length compiles nothing.
Nothing is wrapped: names, what is saved, and peft's adapters stay as they are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch

from luthier.contracts.notice import Notice
from luthier.models.segments import SEGMENTS, segments_attention

_USUAL_CXX = ("clang++",) if sys.platform == "darwin" else ("g++",)


def compile_layers(model: torch.nn.Module, device: torch.device) -> Notice | None:
    """Let a model compile its layers when they first run. Call it when the model is complete.

    Args:
        model: A causal language model, with adapters or without; changed in place.
        device: Where it is.

    Returns:
        Why it runs as it is, or None if it will be compiled.
    """
    layers = decoder_layers(model)
    reason = missing_compiler(device.type)
    if reason is None and not layers:
        reason = f"{type(model).__name__} has no list of layers"
    if reason is not None:
        return Notice("torch_compile", "true", "false", reason)
    _keep_segments_outside()
    for layer in layers:
        layer.compile(dynamic=True)
    return None


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """Return the layers of a model's decoder, out of peft's wrapper; none where it has no list."""
    return list(getattr(decoder_of(model), "layers", ()))


def decoder_of(model: Any) -> Any:
    """Return the part of a model that holds its layers, out of peft's wrapper."""
    base = without_adapters(model)
    return getattr(base, "base_model", base)


def without_adapters(model: Any) -> Any:
    """Return the model of transformers that stands in peft's wrapper, or the model itself."""
    return model.get_base_model() if callable(getattr(model, "get_base_model", None)) else model


def missing_compiler(device_type: str) -> str | None:
    """Say what torch.compile lacks on this machine for a kind of device, or None.

    Args:
        device_type: `cuda`, `cpu` or `mps`.
    """
    if device_type not in ("cpu", "cuda"):
        return f"luthier compiles for CPUs and CUDA GPUs, this device is {device_type}"
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed: pip install triton"
    # The names that torch (CXX) and triton (CC) themselves look at.
    variable, usual = ("CXX", _USUAL_CXX) if device_type == "cpu" else ("CC", ("gcc", "clang"))
    names = (os.environ[variable],) if os.environ.get(variable) else usual
    if not any(shutil.which(name) for name in names):
        return f"there is no compiler ({' or '.join(names)}): install one, or name it in {variable}"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return f"Python's headers are missing ({header}): install python3-dev"
    return None


def _keep_segments_outside() -> None:
    """Let attention over packed rows run as it is: how many segments a row has, it reads."""
    from transformers import AttentionInterface

    AttentionInterface.register(SEGMENTS, torch.compiler.disable(segments_attention))
