"""Take a step only if its loss and its gradient are finite numbers.

Whether they are is known on the device. To look at it there costs nothing; to tell the host, the
device must finish all that it was given before. So there are two ways: the host reads, then steps
(free on a CPU); or the device itself leaves the step out, and the host reads later, many steps
together. Neither lets a number that is none into the weights or the optimiser's state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from luthier.engine.precision import Precision


class Update(Protocol):
    """How a step is taken."""

    @property
    def reads_each_step(self) -> bool:
        """Whether the host has waited for the step's numbers, so that more reading is free."""
        ...

    def take(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        loss_total: torch.Tensor,
        grad_norm: torch.Tensor,
    ) -> None:
        """Step the optimiser if the numbers are finite; else change nothing.

        Args:
            optimizer: Over parameters that have their gradients.
            precision: Steps where there is a loss scaler.
            loss_total: Scalar.
            grad_norm: Scalar, the length before clipping.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReadThenStep:
    """Read the numbers at each step: any optimiser."""

    reads_each_step: bool = True

    def take(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        loss_total: torch.Tensor,
        grad_norm: torch.Tensor,
    ) -> None:
        """See `Update.take`."""
        loss, norm = read_together([loss_total, grad_norm])
        # A scaler skips steps whose gradient overflowed by itself, and learns from them.
        if math.isfinite(loss) and (math.isfinite(norm) or precision.scaler is not None):
            precision.step(optimizer)
        else:
            precision.skip()


@dataclass(frozen=True, slots=True)
class StepWhereFinite:
    """Let the optimiser's kernel leave the step out; `Meter` reads the numbers later.

    Source: `found_inf` is how `torch.amp.GradScaler` tells a fused optimiser to change nothing.
    https://github.com/pytorch/pytorch/blob/v2.10.0/torch/amp/grad_scaler.py
    """

    reads_each_step: bool = False

    def take(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        loss_total: torch.Tensor,
        grad_norm: torch.Tensor,
    ) -> None:
        """See `Update.take`."""
        is_finite = torch.isfinite(loss_total) & torch.isfinite(grad_norm)
        fused: Any = optimizer
        fused.found_inf = (~is_finite).float()
        precision.step(optimizer)
        del fused.found_inf


def choose_update(
    optimizer: torch.optim.Optimizer, precision: Precision, device: torch.device
) -> Update:
    """Return `StepWhereFinite` where reading costs something and the optimiser can do without.

    A loss scaler looks at the gradients alone, and a loss may be infinite where they are not: in
    float16 each step is read.
    """
    can_skip = isinstance(optimizer, torch.optim.AdamW) and bool(optimizer.defaults["fused"])
    if device.type == "cpu" or precision.scaler is not None or not can_skip:
        return ReadThenStep()
    return StepWhereFinite()


def read_together(tensors: Sequence[torch.Tensor]) -> list[float]:
    """Return the numbers in some tensors, one tensor after another, in one transfer.

    Args:
        tensors: At least one, of any shapes; all on one device.
    """
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors]).tolist()
