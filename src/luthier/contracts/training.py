"""The borders of the engine: what it is handed, and what it hands out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class MetricSum:
    """A mean before its division. Sums over micro-batches, steps and batches add up.

    Attributes:
        total: Without gradient. A scalar: the sum that the mean is of. Or a vector of sums, one a
            bin, whose absolute values are added up before the division: an expected calibration
            error is such a mean, and not the mean of the batches' errors.
        weight: Scalar, what is divided by: how many pairs, rows or tokens were summed.
    """

    total: torch.Tensor
    weight: torch.Tensor

    def __add__(self, other: MetricSum) -> MetricSum:
        """Return the sums over both."""
        return MetricSum(self.total + other.total, self.weight + other.weight)

    def mean(self) -> float:
        """Divide, once; NaN where nothing was summed. Asking waits for the device."""
        weight = float(self.weight)
        total = self.total.abs().sum() if self.total.ndim else self.total
        return float(total) / weight if weight else math.nan


def add_metrics(
    one: Mapping[str, MetricSum], other: Mapping[str, MetricSum]
) -> dict[str, MetricSum]:
    """Return the sums over both; a name that only one of them has keeps its sum."""
    both = {name: value + other[name] for name, value in one.items() if name in other}
    return {**one, **other, **both}


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss before its division, so that sums over micro-batches and ranks stay exact.

    An objective over tokens counts tokens; one over pairs or rows of answers divides by these.

    Attributes:
        total: Scalar tensor with gradient: sum over what is judged of weight x loss.
        weight: Sum of the weights, what `Objective.weight` says; a count where weights are 1.
        num_tokens: Count of the supervised tokens.
        num_correct: Count of the supervised tokens whose most likely prediction is right. None
            where the loss is not the cross-entropy of tokens: then no perplexity is reported.
        metrics: What else is worth a line of the log, by the name that it is logged under, such
            as `rewards/margins`; an evaluation puts `eval_` before it.
    """

    total: torch.Tensor
    weight: torch.Tensor
    num_tokens: torch.Tensor
    num_correct: torch.Tensor | None = None
    metrics: Mapping[str, MetricSum] = field(default_factory=dict)


class Objective(Protocol):
    """What a model is trained for. It holds settings, never state of the run."""

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return what this batch adds to the divisor, from the batch alone (no forward pass).

        The sum over a window of micro-batches is the number that the window's loss is divided by.
        """
        ...

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch and return its summed loss."""
        ...


class Resumable(Protocol):
    """A part of a run whose state goes into its checkpoints."""

    def get_state(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `get_state` returned."""
        ...


class BatchSource(Protocol):
    """Micro-batches in windows of one optimiser step each, in an order that can be resumed."""

    def windows_per_epoch(self) -> int:
        """Return how many optimiser steps one epoch takes; the last window may be short."""
        ...

    def epochs_done(self) -> float:
        """Return how many epochs were handed out: 1.5 in the middle of the second."""
        ...

    def windows(self) -> Iterator[Sequence[Batch]]:
        """Yield windows for ever, from where the state stands, epoch after epoch."""
        ...

    def window_rows(self) -> Sequence[int]:
        """Return the numbers of the prepared rows of the window that was handed out last."""
        ...

    def take_back(self) -> None:
        """Count the window that was handed out last as not handed out: its step was not done."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Return the position as plain JSON: what has been handed out AND trained on."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `get_state` returned."""
        ...


class EpochBatches(BatchSource, Protocol):
    """Batches that know the way to the end of an epoch, and of changed settings on it."""

    @property
    def is_changed(self) -> bool:
        """Whether the position was reached with other settings or data than today's."""
        ...

    def windows_left(self, epochs: float) -> int:
        """Return the optimiser steps from here to the end of so many epochs."""
        ...

    def rows_left(self) -> int:
        """Return how many rows the present epoch had left when today's settings took it over."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a run has come. Plain numbers, saved with each checkpoint.

    Attributes:
        evaluation_is_due: The newest step is done, and the evaluation after it was given up.
        ended_early: The validation loss no longer falls, and the rest of the steps is not taken.
        samples_are_due: Prompts are to be answered at this very step, before the next.
    """

    step: int = 0
    num_steps: int = 0
    epoch: float = 0.0
    num_tokens_seen: int = 0
    num_supervised_seen: int = 0
    num_rows_seen: int = 0
    best_eval_loss: float | None = None
    evaluation_is_due: bool = False
    ended_early: bool = False
    samples_are_due: bool = False

    @property
    def finished(self) -> bool:
        """Whether the last step is done, and the evaluation and the samples that follow it."""
        is_last = self.step >= self.num_steps or self.ended_early
        return is_last and not self.evaluation_is_due and not self.samples_are_due


@dataclass(slots=True)
class Accumulation:
    """The part of a step that is done: what a stop in the middle of its micro-batches leaves.

    Their summed gradients stand in the parameters.

    Attributes:
        num_done: Micro-batches of the window under way that are in the gradients.
        loss_total: Scalar tensor on the device: their summed loss; None before the first.
        metrics: Their summed metrics, on the device too.
    """

    num_done: int = 0
    loss_total: torch.Tensor | None = None
    metrics: Mapping[str, MetricSum] = field(default_factory=dict)

    def add(self, loss: LossSum) -> None:
        """Count one more micro-batch, whose gradients have been added."""
        total = loss.total.detach()
        self.num_done += 1
        self.loss_total = total if self.loss_total is None else self.loss_total + total
        self.metrics = add_metrics(self.metrics, loss.metrics)

    def clear(self) -> None:
        """Forget it: the step is done, or is to be begun anew."""
        self.num_done, self.loss_total, self.metrics = 0, None, {}


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimiser step did. `metrics` are plain floats, named as in metrics.jsonl."""

    step: int
    epoch: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the model said to one of the fixed prompts.

    Attributes:
        prompt: As the settings have it.
        answer: Without special tokens.
        finish_reason: `stop` where the model ended it, `length` where its room was used up.
    """

    prompt: str
    answer: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The answers to all fixed prompts after a step; step 0 is the model before training."""

    step: int
    epoch: float
    samples: tuple[Sample, ...]
    seconds: float


class Observer(Protocol):
    """Watches a run and never changes it: display, metrics file, trackers."""

    def on_start(self, progress: Progress) -> None:
        """Training starts or goes on at `progress.step`."""
        ...

    def on_step(self, record: StepRecord) -> None:
        """One optimiser step is done. Called for every step, logged or not."""
        ...

    def on_log(self, record: StepRecord) -> None:
        """`logging_steps` steps are done; the metrics are means and rates over them."""
        ...

    def on_evaluation(self, record: StepRecord) -> None:
        """An evaluation is done; metrics are named `eval_...`."""
        ...

    def on_samples(self, record: SampleRecord) -> None:
        """The fixed prompts are answered."""
        ...

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """A checkpoint is sealed; `seconds` is how long training waited for it."""
        ...

    def on_end(self, progress: Progress) -> None:
        """Training ended, at its end or by a signal."""
        ...


class StopAskedError(Exception):
    """Somebody wants the run to stop, and what was under way was given up: it is to be redone."""


class StopRequest(Protocol):
    """Tells the loop that somebody wants it to stop.

    Attributes:
        has_work: Set by the loop once there is something that a checkpoint would save.
    """

    has_work: bool

    @property
    def requested(self) -> bool:
        """Whether to checkpoint and stop after the micro-batch that is under way."""
        ...

    def take_checkpoint_request(self) -> bool:
        """Return whether somebody wants a checkpoint and training to go on, and forget it."""
        ...


class Evaluator(Protocol):
    """Measures a model; leaves it in training mode as it was."""

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Return metrics named `eval_...`, with `eval_loss` among them.

        Raises:
            StopAskedError: It was given up.
        """
        ...


class Sampler(Protocol):
    """Lets a model answer fixed prompts; leaves it, and all random states, as they were."""

    def __call__(self, model: torch.nn.Module) -> tuple[Sample, ...]:
        """Return one answer a prompt.

        Raises:
            StopAskedError: It was given up.
        """
        ...


class CheckpointSink(Protocol):
    """Writes the state of a run so that it can go on from there."""

    def save(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Write and seal one checkpoint, or copy all that belongs to it and write it meanwhile."""
        ...

    def sealed(self) -> Sequence[tuple[int, str, float]]:
        """Return what was sealed since this was last asked: step, path, seconds waited for it.

        Raises what the writing of one raised.
        """
        ...

    def wait(self) -> None:
        """Return once nothing is being written any more."""
        ...
