"""Sums over the steps between two lines of the log, and the rates that follow from them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

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

    @property
    def loss(self) -> float:
        """The step's loss: the sum divided by the weight, once. Asking waits for the device."""
        return float(self.loss_total) / self.loss_weight if self.loss_weight else 0.0


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

    def settle(self) -> list[tuple[StepOutcome, float, float]]:
        """Fetch what the steps came to, and wait for them: theirs is the time that it takes.

        Returns:
            Of each step that was not fetched before: its outcome, summed loss, gradient's length.
        """
        steps = self._outcomes[len(self._numbers) :]
        if not steps:
            return []
        self.start()
        numbers = read_together([(step.loss_total, step.grad_norm) for step in steps])
        self._seconds += time.perf_counter() - self._started_s
        self._numbers += numbers
        return [(step, loss, norm) for step, (loss, norm) in zip(steps, numbers, strict=True)]

    def read(self) -> dict[str, float]:
        """Return means and rates since the last reading, and start anew.

        The loss is the sum of the losses over the sum of the weights: a token counts the same
        whichever step it stood in. Steps whose numbers are not finite were not taken: they are
        counted, as `skipped_steps`, and left out of the means.
        """
        self.settle()
        steps, numbers, seconds = self._outcomes, self._numbers, max(self._seconds, 1e-9)
        taken = [
            (step.loss_weight, loss, norm)
            for step, (loss, norm) in zip(steps, numbers, strict=True)
            if math.isfinite(loss) and math.isfinite(norm)
        ]
        weight = sum(weight for weight, _, _ in taken)
        self._outcomes, self._numbers, self._seconds = [], [], 0.0
        metrics = {
            "loss": sum(loss for _, loss, _ in taken) / weight if weight else 0.0,
            "learning_rate": steps[-1].learning_rate,
            "grad_norm": sum(norm for *_, norm in taken) / len(taken) if taken else 0.0,
            "tokens_per_second": sum(s.num_tokens for s in steps) / seconds,
            "supervised_tokens_per_second": sum(s.num_supervised for s in steps) / seconds,
            "seconds_per_step": seconds / len(steps),
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
                "loss_total": loss if math.isfinite(loss) else None,
                "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
                "loss_weight": step.loss_weight,
                "num_tokens": step.num_tokens,
                "num_supervised": step.num_supervised,
                "num_rows": step.num_rows,
                "learning_rate": step.learning_rate,
            }
            for step, (loss, grad_norm) in fetched
        ]
        return {"seconds": self._seconds, "steps": steps}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        self._seconds = state["seconds"]
        self._outcomes, self._numbers = [], []
        for step in state["steps"]:
            # JSON has no NaN.
            pair = [math.nan if step[n] is None else step[n] for n in ("loss_total", "grad_norm")]
            loss_total, grad_norm = map(torch.tensor, pair)
            known = step | {"loss_total": loss_total, "grad_norm": grad_norm}
            self._outcomes.append(StepOutcome(**known))
            self._numbers.append(pair)


def memory_bytes() -> int:
    """Return the GPU memory that this process has reserved at most, or else its resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return psutil.Process().memory_info().rss
