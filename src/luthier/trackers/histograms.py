"""Histograms of what is trained and of its gradients, taken just before a step.

The gradients are those that the step uses: summed over its micro-batches, and clipped. They are
gone once the step is done, so the optimiser is asked to call just before it
(`register_step_pre_hook`); the loop knows nothing of it.

B: bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from luthier.contracts.training import Progress

NUM_BINS = 64

NUMBERS_AT_ONCE = 2**24
"""Numbers of a tensor that are looked at together: an embedding's copies are not small."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the numbers of one tensor are spread; numbers that are not finite are left out.

    Attributes:
        counts: B counts.
        edges: B + 1 edges of bins of one width, rising.
        total: Sum of the numbers.
        total_squares: Sum of their squares.
    """

    counts: list[int]
    edges: list[float]
    total: float
    total_squares: float


def histogram_of(tensor: torch.Tensor, num_bins: int = NUM_BINS) -> Histogram | None:
    """Count the numbers of a tensor of any shape; None where none of them is finite."""
    parts = tensor.detach().flatten().split(NUMBERS_AT_ONCE)
    ends = [end for part in parts for end in _ends(_finite(part))]
    if not ends:
        return None
    low, high = min(ends), max(ends)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts = torch.zeros(num_bins, dtype=torch.int64, device=tensor.device)
    total, total_squares = 0.0, 0.0
    for part in parts:
        values = _finite(part)
        # Not torch.histc, which is not deterministic on a GPU.
        bins = ((values - low) * (num_bins / (high - low))).long().clamp_(0, num_bins - 1)
        counts += torch.bincount(bins, minlength=num_bins)
        total += float(values.sum(dtype=torch.float64))
        total_squares += float(values.double().square_().sum())
    width = (high - low) / num_bins
    edges = [low + width * index for index in range(num_bins)] + [high]
    return Histogram(counts.tolist(), edges, total, total_squares)


def _finite(part: torch.Tensor) -> torch.Tensor:
    values = part.float()
    # The ends are not finite if one number is not; to look for it costs far more.
    if all(map(math.isfinite, _ends(values))):
        return values
    return values[torch.isfinite(values)]


def _ends(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(end) for end in values.aminmax()) if values.numel() else ()


class HistogramTap:
    """Takes the histograms of a run every so many steps."""

    def __init__(self, every: int, show: Callable[[int, Mapping[str, Histogram]], None]) -> None:
        """Remember whom to show them.

        Args:
            every: Optimiser steps from one time to the next.
            show: Given the number of the step, and histograms by `weights/NAME`, `gradients/NAME`.
        """
        self._every = every
        self._show = show

    def watch(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        """Look at a model just before steps of its optimiser.

        Args:
            model: Whose parameters are named.
            optimizer: Over those that are trained.
            progress: Counts the steps that are done.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def look(optimizer: torch.optim.Optimizer, *_arguments: Any) -> None:
            step = progress.step + 1
            if step % self._every == 0:
                self._show(step, _take(optimizer, names))

        optimizer.register_step_pre_hook(look)


@torch.no_grad()
def _take(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            tensors = {"weights": parameter, "gradients": parameter.grad}
            for kind, tensor in tensors.items():
                histogram = None if tensor is None else histogram_of(tensor)
                if histogram is not None:
                    found[f"{kind}/{names[id(parameter)]}"] = histogram
    return found
