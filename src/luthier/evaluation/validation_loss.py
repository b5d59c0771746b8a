"""Loss, and what else the objective tells, over validation rows: sums, each divided once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from luthier.contracts.training import (
    LossSum,
    MetricSum,
    Objective,
    StopAskedError,
    add_metrics,
)
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
        """Return `eval_loss`, counts, and the objective's metrics, each named `eval_...`.

        Perplexity (`eval_perplexity`) and `eval_token_accuracy` are given where the loss is the
        cross-entropy of tokens. The model goes back to the mode (training or not) that it was in.

        Raises:
            StopAskedError: Somebody wants to stop: it would take too long to finish.
        """
        started_s = time.perf_counter()
        was_training = model.training
        model.eval()
        sums = _Sums()
        try:
            with torch.inference_mode():
                for batch in self.batches():
                    if self.is_stopped():
                        raise StopAskedError
                    sums += self.micro_batches.retry(partial(self._sums, model, batch), _nothing)
        finally:
            model.train(was_training)
        return sums.means() | {"eval_seconds": time.perf_counter() - started_s}

    def _sums(self, model: torch.nn.Module, batch: Batch) -> _Sums:
        sums = _Sums()
        for part in self.micro_batches.cut([batch]):
            on_device = {name: t.to(self.device) for name, t in part.items()}
            with self.precision.autocast():
                sums += _Sums.of(self.objective(model, on_device))
        return sums


@dataclass(frozen=True, slots=True)
class _Sums:
    """A `LossSum` as numbers in double precision, on the host."""

    total: float = 0.0
    weight: float = 0.0
    num_tokens: float = 0.0
    num_correct: float | None = None
    metrics: Mapping[str, MetricSum] = field(default_factory=dict)

    @classmethod
    def of(cls, loss: LossSum) -> _Sums:
        return cls(
            total=float(loss.total),
            weight=float(loss.weight),
            num_tokens=float(loss.num_tokens),
            num_correct=None if loss.num_correct is None else float(loss.num_correct),
            metrics={name: _on_host(metric) for name, metric in loss.metrics.items()},
        )

    def __add__(self, other: _Sums) -> _Sums:
        known = [one.num_correct for one in (self, other) if one.num_correct is not None]
        return _Sums(
            total=self.total + other.total,
            weight=self.weight + other.weight,
            num_tokens=self.num_tokens + other.num_tokens,
            num_correct=sum(known) if known else None,
            metrics=add_metrics(self.metrics, other.metrics),
        )

    def means(self) -> dict[str, float]:
        loss = self.total / self.weight if self.weight else math.nan
        found = {"eval_loss": loss}
        if self.num_correct is not None:
            found["eval_perplexity"] = math.inf if loss > LARGEST_EXPONENT else math.exp(loss)
            share = self.num_correct / self.num_tokens if self.num_tokens else math.nan
            found["eval_token_accuracy"] = share
        found |= {f"eval_{name}": metric.mean() for name, metric in self.metrics.items()}
        return found | {"eval_supervised_tokens": self.num_tokens}


def _on_host(metric: MetricSum) -> MetricSum:
    return MetricSum(metric.total.cpu().double(), metric.weight.cpu().double())


def _nothing() -> None:
    """Forget nothing: a try that failed has left nothing behind."""
