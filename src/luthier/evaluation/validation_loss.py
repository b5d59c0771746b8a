"""Loss, perplexity and token accuracy over validation rows: sums over all tokens, divided once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from luthier.contracts.training import Objective, StopAskedError
from luthier.engine.memory import MicroBatches
from luthier.engine.precision import Precision

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

LARGEST_EXPONENT = 700.0
"""exp() of more than this does not fit a float; such a perplexity is reported as infinite."""


@dataclass(frozen=True, slots=True)
class ValidationLoss:
    """Measures a model on the same rows at every call; implements `Evaluator`.

    Attributes:
        batches: Makes the batches anew for each evaluation.
        objective: Without label smoothing, so that the perplexity is a perplexity.
        precision: The precision that training computes in.
        device: Where the model is.
        is_stopped: Asked before each batch: whether somebody wants to stop.
        micro_batches: Cuts batches where memory runs out.
    """

    batches: Callable[[], Iterable[Batch]]
    objective: Objective
    precision: Precision
    device: torch.device
    is_stopped: Callable[[], bool] = lambda: False
    micro_batches: MicroBatches = field(default_factory=MicroBatches)

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Return `eval_loss`, `eval_perplexity`, `eval_token_accuracy` and counts.

        The model goes back to the mode (training or not) that it was in.

        Raises:
            StopAskedError: Somebody wants to stop: it would take too long to finish.
        """
        started_s = time.perf_counter()
        was_training = model.training
        model.eval()
        sums = [0.0] * 4
        try:
            with torch.inference_mode():
                for batch in self.batches():
                    if self.is_stopped():
                        raise StopAskedError
                    found = self.micro_batches.retry(partial(self._sums, model, batch), _nothing)
                    sums = [one + other for one, other in zip(sums, found, strict=True)]
        finally:
            model.train(was_training)
        total, weight, tokens, correct = sums
        loss = total / weight if weight else math.nan
        return {
            "eval_loss": loss,
            "eval_perplexity": math.inf if loss > LARGEST_EXPONENT else math.exp(loss),
            "eval_token_accuracy": correct / tokens if tokens else math.nan,
            "eval_supervised_tokens": tokens,
            "eval_seconds": time.perf_counter() - started_s,
        }

    def _sums(self, model: torch.nn.Module, batch: Batch) -> list[float]:
        sums = [0.0] * 4
        for part in self.micro_batches.cut([batch]):
            on_device = {name: t.to(self.device) for name, t in part.items()}
            with self.precision.autocast():
                loss = self.objective(model, on_device)
            found = (loss.total, loss.weight, loss.num_tokens, loss.num_correct)
            sums = [one + float(other) for one, other in zip(sums, found, strict=True)]
        return sums


def _nothing() -> None:
    """Forget nothing: a try that failed has left nothing behind."""
