"""Sums over the steps between two lines of the log, and the rates that follow from them."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import psutil
import torch

from luthier.contracts.training import MetricSum, add_metrics
from luthier.engine.update import read_together


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimiser step did.

    Attributes:
        step: Its number, from 1.
        loss_total: Weighted sum of token losses; a scalar on the device, perhaps not there yet.
        loss_weight: What it was divided by.
        num_tokens: Real (non-padding) tokens computed.
        num_supervised: Tokens that carried loss.
        num_rows: Rows of the window.
        grad_norm: Length of the gradient before clipping; a scalar on the device.
        learning_rate: The rate that the step used.
        rows: Numbers of its prepared rows.
        metrics: What the objective says beside the loss; on the device.
    """

    step: int
    loss_total: torch.Tensor
    loss_weight: float
    num_tokens: int
    num_supervised: int
    num_rows: int
    grad_norm: torch.Tensor
    learning_rate: float
    rows: Sequence[int] = ()
    metrics: Mapping[str, MetricSum] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The step's loss: the sum divided by the weight, once. Asking waits for the device."""
        return float(self.loss_total) / self.loss_weight if self.loss_weight else 0.0


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What the host has fetched of a step."""

    loss_total: float
    grad_norm: float
    metrics: Mapping[str, MetricSum] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss_total) and math.isfinite(self.grad_norm)


PARTS: tuple[str, ...] = ("data", "forward", "backward", "optimizer")
"""What a step's time goes into; the log has each as `seconds_...`, a mean over the steps."""


class Meter:
    """Collects outcomes, and the time that the steps took, until `read` empties it.

    Implements `Resumable`: a checkpoint may lie between two lines of the log.

    Losses and gradient lengths stay on the device until `settle` fetches those of all steps
    together. Only steps are timed (their data included): an evaluation between two steps does not
    make training look slower.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._outcomes: list[StepOutcome] = []
        self._numbers: list[_Numbers] = []
        self._seconds = 0.0
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._started_s = 0.0

    @contextmanager
    def timing(self, part: str) -> Generator[None]:
        """Count the block's time as that of one of the `PARTS`.

        It is the host's. A GPU works behind it: there, a part is how long it took to hand its work
        over, and waiting is not among the parts.
        """
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self._parts[part] += time.perf_counter() - started_s

    def start(self) -> None:
        """Start the clock of one step."""
        self._started_s = time.perf_counter()

    def add(self, outcome: StepOutcome) -> None:
        """Stop the clock and take the step into account."""
        self._seconds += time.perf_counter() - self._started_s
        self._outcomes.append(outcome)

    def settle(self) -> list[tuple[StepOutcome, float, float]]:
        """Fetch what the steps came to, and wait for them: theirs is the time that it takes.

        Returns:
            Of each step that was not fetched before: its outcome, summed loss, gradient's length.
        """
        steps = self._outcomes[len(self._numbers) :]
        if not steps:
            return []
        self.start()
        numbers = _fetch(steps)
        self._seconds += time.perf_counter() - self._started_s
        self._numbers += numbers
        return [
            (step, found.loss_total, found.grad_norm)
            for step, found in zip(steps, numbers, strict=True)
        ]

    def read(self) -> dict[str, float]:
        """Return means and rates since the last reading, and start anew.

        The loss is the sum of the losses over the sum of the weights: a token counts the same
        whichever step it stood in. The objective's metrics are divided in the same way, by their
        own weights. Steps whose numbers are not finite were not taken: they are counted, as
        `skipped_steps`, and left out of the means.
        """
        self.settle()
        steps, numbers, seconds = self._outcomes, self._numbers, max(self._seconds, 1e-9)
        pairs = zip(steps, numbers, strict=True)
        weight = sum(step.loss_weight for step, found in pairs if found.is_finite)
        taken = [found for found in numbers if found.is_finite]
        sums: Mapping[str, MetricSum] = {}
        for found in taken:
            sums = add_metrics(sums, found.metrics)
        parts, self._parts = self._parts, dict.fromkeys(PARTS, 0.0)
        self._outcomes, self._numbers, self._seconds = [], [], 0.0
        metrics = {
            "loss": sum(found.loss_total for found in taken) / weight if weight else 0.0,
            **{name: metric.mean() for name, metric in sums.items()},
            "learning_rate": steps[-1].learning_rate,
            "grad_norm": sum(found.grad_norm for found in taken) / len(taken) if taken else 0.0,
            "tokens_per_second": sum(s.num_tokens for s in steps) / seconds,
            "supervised_tokens_per_second": sum(s.num_supervised for s in steps) / seconds,
            "seconds_per_step": seconds / len(steps),
            **{f"seconds_{part}": spent / len(steps) for part, spent in parts.items()},
            "memory_bytes": float(memory_bytes()),
        }
        skipped = len(steps) - len(taken)
        return metrics | ({"skipped_steps": float(skipped)} if skipped else {})

    def get_state(self) -> dict[str, Any]:
        """Return the steps since the last reading, as far as they were fetched."""
        fetched = zip(self._outcomes, self._numbers, strict=False)
        steps = [
            {
                "step": step.step,
                "loss_total": _plain(found.loss_total),
                "grad_norm": _plain(found.grad_norm),
                "metrics": {
                    name: [_plain(metric.total.tolist()), float(metric.weight)]
                    for name, metric in found.metrics.items()
                },
                "loss_weight": step.loss_weight,
                "num_tokens": step.num_tokens,
                "num_supervised": step.num_supervised,
                "num_rows": step.num_rows,
                "learning_rate": step.learning_rate,
            }
            for step, found in fetched
        ]
        return {"seconds": self._seconds, "parts": dict(self._parts), "steps": steps}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._seconds = state["seconds"]
        # Checkpoints of luthier 0.1 from before there were parts go on too.
        self._parts = dict.fromkeys(PARTS, 0.0) | state.get("parts", {})
        self._outcomes, self._numbers = [], []
        for step in state["steps"]:
            saved = step.get("metrics", {})
            metrics = {
                name: MetricSum(_tensor(total), _tensor(weight))
                for name, (total, weight) in saved.items()
            }
            pair = [_tensor(step[name]) for name in ("loss_total", "grad_norm")]
            known = {"loss_total": pair[0], "grad_norm": pair[1], "metrics": metrics}
            self._outcomes.append(StepOutcome(**(step | known)))
            self._numbers.append(_Numbers(float(pair[0]), float(pair[1]), metrics))


def _fetch(steps: Sequence[StepOutcome]) -> list[_Numbers]:
    # All tensors of all steps in one transfer, cut up again here.
    tensors = [
        tensor
        for step in steps
        for tensor in (
            *(step.loss_total, step.grad_norm),
            *(t for metric in step.metrics.values() for t in (metric.total, metric.weight)),
        )
    ]
    numbers = iter(read_together(tensors))

    def take(like: torch.Tensor) -> torch.Tensor:
        values = list(islice(numbers, like.numel()))
        return torch.tensor(values, dtype=torch.float64).view(like.shape)

    return [
        _Numbers(
            next(numbers),
            next(numbers),
            {name: MetricSum(take(m.total), take(m.weight)) for name, m in step.metrics.items()},
        )
        for step in steps
    ]


def _plain(number: Any) -> Any:
    # JSON has neither NaN nor infinity.
    if isinstance(number, list):
        return [_plain(part) for part in number]
    return number if math.isfinite(number) else None


def _tensor(number: Any) -> torch.Tensor:
    parts = number if isinstance(number, list) else [number]
    values = [math.nan if part is None else part for part in parts]
    found = torch.tensor(values, dtype=torch.float64)
    return found if isinstance(number, list) else found[0]


def memory_bytes() -> int:
    """Return the GPU memory that this process has reserved at most, or else its resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return psutil.Process().memory_info().rss
