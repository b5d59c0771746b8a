"""The number type that a run computes in, by what the device has.

Trained weights stay in float32; autocast casts for the matrix products. float16 needs its loss
scaled, bfloat16 has float32's range and does not.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from luthier.contracts.notice import Notice
from luthier.engine.settings import TrainingSettings


def choose_device() -> torch.device:
    """Return the device to train on: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Precision:
    """How the forward pass computes and how a gradient is scaled.

    Attributes:
        dtype: Type of the matrix products.
        device_type: `cuda`, `cpu` or `mps`.
        scaler: Loss scaler of float16; None otherwise.
    """

    dtype: torch.dtype
    device_type: str
    scaler: torch.amp.GradScaler | None = None

    @property
    def name(self) -> str:
        """The field's short name: bf16, fp16 or fp32."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype, "fp32")

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device_type, self.dtype, enabled=enabled)

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradients to the parameters, scaled where float16 needs it."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring gradients to their true size before they are measured and clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step the optimiser; with a scaler, only if no gradient overflowed."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def skip(self) -> None:
        """Leave a step out after `unscale`."""
        if self.scaler is not None:
            self.scaler.update()


def choose_precision(
    settings: TrainingSettings, device: torch.device
) -> tuple[Precision, Notice | None]:
    """Choose the type to compute in.

    Args:
        settings: `bf16` (None: where it is native) and `fp16`.
        device: Where training runs.

    Returns:
        The precision, and a notice where it is not what was asked for.
    """
    native = has_native_bf16(device)
    if settings.fp16:
        if device.type == "cuda":
            return Precision(torch.float16, "cuda", torch.amp.GradScaler("cuda")), None
        best = torch.bfloat16 if native else torch.float32
        chosen = Precision(best, device.type)
        return chosen, Notice("fp16", "fp16", chosen.name, "float16 training needs a CUDA GPU")
    wants = native if settings.bf16 is None else settings.bf16
    if wants and not native and device.type == "cuda":
        chosen = Precision(torch.float32, device.type)
        return chosen, Notice("bf16", "bf16", "fp32", "this GPU has no native bfloat16")
    chosen = Precision(torch.bfloat16 if wants else torch.float32, device.type)
    if wants and not native:
        reason = f"this {device.type} emulates bfloat16: slower than fp32, the same result"
        return chosen, Notice("bf16", "bf16", "bf16", reason)
    return chosen, None


def has_native_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(cpu_bf16_features())
    return False


def cpu_bf16_features() -> list[str]:
    """Return the CPU's bfloat16 instruction sets, by their usual names."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return []
    found = torch.cpu.get_capabilities()
    return [name for name in ("avx512_bf16", "amx_bf16") if found.get(name)]
