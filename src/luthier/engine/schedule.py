"""The learning rate over the steps: pure functions, equal to transformers' schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from luthier.contracts.training import Progress
from luthier.engine.settings import ScheduleSettings

Schedule = Callable[[int], float]
"""From the number of finished steps to the learning rate of the next one."""

MIN_LR_RATIO = 0.1
"""Lowest rate of cosine_with_min_lr, as a share of the highest."""
DECAY_RATIO = 0.1
"""Share of the steps in which warmup_stable_decay falls: 10 % are enough (arXiv 2404.06395)."""
DECAY_TYPE = "1-sqrt"
TIMESCALE = 10_000
"""Steps after which inverse_sqrt without warm-up has fallen to 1/sqrt(2); else those of warm-up."""


@dataclass(frozen=True, slots=True)
class _Span:
    """The steps after warm-up."""

    num_steps: int
    warmup: int
    settings: ScheduleSettings

    def progress(self, step: int) -> float:
        """Return how much of the way from warm-up to the end is done, from 0 to 1."""
        return min(1.0, (step - self.warmup) / max(1, self.num_steps - self.warmup))

    def lowest(self, default: float = 0.0) -> float:
        """Return the lowest rate as a share of the highest."""
        asked = self.settings.min_lr_ratio
        return default if asked is None else asked


def build_schedule(settings: ScheduleSettings, num_steps: int) -> Schedule:
    """Return the learning rate as a function of the step.

    Args:
        settings: Highest rate, shape and warm-up.
        num_steps: Optimiser steps of the whole run.

    Returns:
        `rate(step)`, where `step` counts from 0. As in transformers, the first step of a warm-up
        has rate 0; of warmup_stable_decay, its lowest rate.
    """
    span = _Span(num_steps, warmup_steps(settings, num_steps), settings)
    shape = _SHAPES[settings.lr_scheduler_type]
    start = span.lowest() if settings.lr_scheduler_type == "warmup_stable_decay" else 0.0

    def rate(step: int) -> float:
        if step < span.warmup:
            return settings.learning_rate * _between(start, step / span.warmup)
        return settings.learning_rate * shape(step, span)

    return rate


def warmup_steps(settings: ScheduleSettings, num_steps: int) -> int:
    """Return the steps in which the learning rate rises."""
    return settings.warmup_steps or math.ceil(settings.warmup_ratio * num_steps)


def decay_steps(settings: ScheduleSettings, num_steps: int) -> int:
    """Return the steps in which warmup_stable_decay falls: at most all after warm-up."""
    wanted = math.ceil((settings.lr_decay_ratio or DECAY_RATIO) * num_steps)
    return min(wanted, max(0, num_steps - warmup_steps(settings, num_steps)))


def _between(lowest: float, share: float) -> float:
    return lowest + (1.0 - lowest) * share


def _linear(step: int, span: _Span) -> float:
    return 1.0 - span.progress(step)


def _cosine(step: int, span: _Span) -> float:
    return _half_wave(span.progress(step))


def _cosine_with_min_lr(step: int, span: _Span) -> float:
    return _between(span.lowest(MIN_LR_RATIO), _cosine(step, span))


def _constant(step: int, span: _Span) -> float:
    del step, span
    return 1.0


def _polynomial(step: int, span: _Span) -> float:
    return _between(span.lowest(), _linear(step, span) ** (span.settings.lr_power or 1.0))


def _inverse_sqrt(step: int, span: _Span) -> float:
    timescale = span.warmup or TIMESCALE
    return math.sqrt(timescale / (step - span.warmup + timescale))


def _warmup_stable_decay(step: int, span: _Span) -> float:
    num_decaying = decay_steps(span.settings, span.num_steps)
    num_done = step - (span.num_steps - num_decaying)
    if num_done < 0:
        return 1.0
    fall = _FALLS[span.settings.lr_decay_type or DECAY_TYPE]
    share = fall(num_done / num_decaying) if num_done < num_decaying else 0.0
    return _between(span.lowest(), share)


def _half_wave(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


_FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": _half_wave,
    "1-sqrt": lambda progress: 1.0 - math.sqrt(progress),
}

_SHAPES: dict[str, Callable[[int, _Span], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "constant": _constant,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "warmup_stable_decay": _warmup_stable_decay,
}


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
