"""Sums over the steps between two lines of the log, and the rates that follow from them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
import torch

from luthier.engine.update import read_together, refuse_divergence


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
    """

    step: int
    loss_total: torch.Tensor
    loss_weight: float
    num_tokens: int
    num_supervised: int
    num_rows: int
    grad_norm: torch.Tensor
    learning_rate: float

    @property
    def loss(self) -> float:
        """The step's loss: the sum divided by the weight, once. Asking waits for the device."""
        return float(self.loss_total) / self.loss_weight if self.loss_weight else 0.0


class Meter:
    """Collects outcomes, and the time that the steps took, until `read` empties it.

    Losses and gradient lengths stay on the device until `settle` fetches those of all steps
    together. Only steps are timed (their data included): an evaluation between two steps does not
    make training look slower.
    """

    def __init__(self, *, may_overflow: bool = False) -> None:
        """Start empty.

        Args:
            may_overflow: As `refuse_divergence`.
        """
        self._may_overflow = may_overflow
        self._outcomes: list[StepOutcome] = []
        self._numbers: list[list[float]] = []
        self._seconds = 0.0
        self._started_s = 0.0

    def start(self) -> None:
        """Start the clock of one step."""
        self._started_s = time.perf_counter()

    def add(self, outcome: StepOutcome) -> None:
        """Stop the clock and take the step into account."""
        self._seconds += time.perf_counter() - self._started_s
        self._outcomes.append(outcome)

    def settle(self) -> None:
        """Fetch what the steps came to, and wait for them: theirs is the time that it takes.

        Raises:
            RunError: The loss or the gradient of a step is not finite. That step changed nothing.
        """
        steps = self._outcomes[len(self._numbers) :]
        if not steps:
            return
        self.start()
        numbers = read_together([(step.loss_total, step.grad_norm) for step in steps])
        self._seconds += time.perf_counter() - self._started_s
        self._numbers += numbers
        for step, (loss, grad_norm) in zip(steps, numbers, strict=True):
            refuse_divergence(step.step, loss, grad_norm, may_overflow=self._may_overflow)

    def read(self) -> dict[str, float]:
        """Return means and rates since the last reading, and start anew.

        The loss is the sum of the losses over the sum of the weights: a token counts the same
        whichever step it stood in.

        Raises:
            RunError: As `settle`.
        """
        self.settle()
        steps, numbers, seconds = self._outcomes, self._numbers, max(self._seconds, 1e-9)
        weight = sum(s.loss_weight for s in steps)
        self._outcomes, self._numbers, self._seconds = [], [], 0.0
        return {
            "loss": sum(loss for loss, _ in numbers) / weight if weight else 0.0,
            "learning_rate": steps[-1].learning_rate,
            "grad_norm": sum(norm for _, norm in numbers) / len(steps),
            "tokens_per_second": sum(s.num_tokens for s in steps) / seconds,
            "supervised_tokens_per_second": sum(s.num_supervised for s in steps) / seconds,
            "seconds_per_step": seconds / len(steps),
            "memory_bytes": float(memory_bytes()),
        }


def memory_bytes() -> int:
    """Return the GPU memory that this process has reserved at most, or else its resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return psutil.Process().memory_info().rss
