"""The borders of the engine: what it is handed, and what it hands out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss before its division, so that sums over micro-batches and ranks stay exact.

    Attributes:
        total: Scalar tensor with gradient: sum over supervised tokens of weight x loss.
        weight: Sum of the weights of the supervised tokens; their count where weights are 1.
        num_tokens: Count of the supervised tokens.
        num_correct: Count of the supervised tokens whose most likely prediction is right.
    """

    total: torch.Tensor
    weight: torch.Tensor
    num_tokens: torch.Tensor
    num_correct: torch.Tensor


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

    def get_state(self) -> dict[str, Any]:
        """Return the position as plain JSON: what has been handed out AND trained on."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `get_state` returned."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a run has come. Plain numbers, saved with each checkpoint."""

    step: int = 0
    num_steps: int = 0
    epoch: float = 0.0
    num_tokens_seen: int = 0
    num_supervised_seen: int = 0
    num_rows_seen: int = 0
    best_eval_loss: float | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimiser step did. `metrics` are plain floats, named as in metrics.jsonl."""

    step: int
    epoch: float
    metrics: Mapping[str, float] = field(default_factory=dict)


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

    def on_checkpoint(self, step: int, path: str) -> None:
        """A checkpoint is sealed."""
        ...

    def on_end(self, progress: Progress) -> None:
        """Training ended, at its end or by a signal."""
        ...


class StopRequest(Protocol):
    """Tells the loop that somebody wants it to stop."""

    @property
    def requested(self) -> bool:
        """Whether to checkpoint and stop after the step that is under way."""
        ...


class Evaluator(Protocol):
    """Measures a model; leaves it in training mode as it was."""

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Return metrics named `eval_...`, with `eval_loss` among them."""
        ...


class CheckpointSink(Protocol):
    """Writes the state of a run so that it can go on from there."""

    def save(self, progress: Progress, metrics: Mapping[str, float]) -> str:
        """Write and seal one checkpoint and return its path."""
        ...
