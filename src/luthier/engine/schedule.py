"""The learning rate over the steps: pure functions, equal to transformers' schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from luthier.contracts.training import Progress
from luthier.engine.settings import ScheduleSettings

Schedule = Callable[[int], float]
"""From the number of finished steps to the learning rate of the next one."""


def build_schedule(settings: ScheduleSettings, num_steps: int) -> Schedule:
    """Return the learning rate as a function of the step.

    Args:
        settings: Highest rate, shape and warm-up.
        num_steps: Optimiser steps of the whole run.

    Returns:
        `rate(step)`, where `step` counts from 0. As in transformers, the first step of a warm-up
        has rate 0.
    """
    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * num_steps)
    shape = _SHAPES[settings.lr_scheduler_type]

    def rate(step: int) -> float:
        if step < warmup:
            return settings.learning_rate * step / max(1, warmup)
        progress = (step - warmup) / max(1, num_steps - warmup)
        return settings.learning_rate * shape(min(1.0, progress))

    return rate


def _linear(progress: float) -> float:
    return 1.0 - progress


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _constant(progress: float) -> float:
    del progress
    return 1.0


_SHAPES = {"linear": _linear, "cosine": _cosine, "constant": _constant}


def count_steps(num_epochs: float, steps_per_epoch: int, max_steps: int | None) -> int:
    """Return the optimiser steps of a run; a last, shorter window is a step of its own."""
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil(num_epochs * steps_per_epoch))


Every = int | Literal["epoch"] | None
"""How often something comes: every so many steps, at each epoch's end, or never."""


def cadence(strategy: str, steps: int | None) -> Every:
    """Return how often something comes.

    Args:
        strategy: `auto`, `no`, `steps` or `epoch`.
        steps: The number that goes with `steps`, and that `auto` follows where it is given.
    """
    if strategy == "no":
        return None
    return steps if steps is not None else "epoch"


def is_due(progress: Progress, every: Every) -> bool:
    """Whether something that comes every so often, and at the end, comes now.

    Epochs may have different numbers of steps, where rows are packed: their ends are seen by the
    position in the data.
    """
    if every is None:
        return False
    if progress.step == progress.num_steps:
        return True
    return progress.epoch.is_integer() if every == "epoch" else progress.step % every == 0
