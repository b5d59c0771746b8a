"""The training loop, from top to bottom as on a lecture's slide, and right where slides are naive.

Comes in: a model, windows of batches, an objective, an optimiser. Goes out: a trained model, and a
call to the observers for everything that happened. The loop knows no file, no template, no adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from luthier.contracts.counting import count_rows, count_supervised, count_tokens
from luthier.contracts.training import (
    BatchSource,
    CheckpointSink,
    Evaluator,
    Objective,
    Observer,
    Progress,
    StepRecord,
    StopRequest,
)
from luthier.engine.memory import MicroBatches
from luthier.engine.meter import Meter, StepOutcome
from luthier.engine.optimizer import set_learning_rate
from luthier.engine.precision import Precision
from luthier.engine.schedule import Schedule, is_due
from luthier.engine.update import ReadThenStep, Update

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that a run steps with. The loop changes the model, the optimiser and `progress`.

    Attributes:
        rate: Learning rate as a function of finished steps.
        eval_every: Steps between evaluations; None for never.
        save_every: Steps between checkpoints; None for never.
        stop: Asked after each step; a true answer means: checkpoint, then return.
        update: Takes a step if its numbers are finite; `choose_update` knows which way is best.
        micro_batches: Cuts a window to what fits the memory.
    """

    model: torch.nn.Module
    batches: BatchSource
    objective: Objective
    optimizer: torch.optim.Optimizer
    rate: Schedule
    precision: Precision
    device: torch.device
    progress: Progress
    max_grad_norm: float
    logging_steps: int
    stop: StopRequest
    update: Update = field(default_factory=ReadThenStep)
    micro_batches: MicroBatches = field(default_factory=MicroBatches)
    eval_every: int | None = None
    save_every: int | None = None
    eval_on_start: bool = False
    evaluator: Evaluator | None = None
    sink: CheckpointSink | None = None
    observers: Sequence[Observer] = ()


def train(run: Training) -> Progress:
    """Train until the last step, or until somebody asks to stop.

    Returns:
        The progress; `step < num_steps` means that the run was stopped and can go on.

    Raises:
        RunError: The loss or its gradient is not a finite number, or a row does not fit the memory.
            That step was not taken. On a GPU it is found out when the next line of the log is
            due, before an evaluation and before a checkpoint; the steps after it were taken.
    """
    progress = run.progress
    meter = Meter(may_overflow=run.precision.scaler is not None)
    windows = run.batches.windows()
    run.model.train()
    _tell(run, lambda observer: observer.on_start(progress))
    if run.eval_on_start and progress.step == 0:
        evaluate(run)

    stopping = run.stop.requested
    while progress.step < progress.num_steps and not stopping:
        meter.start()
        outcome = training_step(run, next(windows))
        meter.add(outcome)
        advance(progress, outcome, run.batches.epochs_done())
        known = {"loss": outcome.loss} if run.update.reads_each_step else {}
        record = StepRecord(progress.step, progress.epoch, known)
        _tell(run, lambda observer, record=record: observer.on_step(record))
        if is_due(progress.step, run.logging_steps, progress.num_steps):
            log = StepRecord(progress.step, progress.epoch, meter.read())
            _tell(run, lambda observer, log=log: observer.on_log(log))
        metrics: dict[str, float] = {}
        if is_due(progress.step, run.eval_every, progress.num_steps):
            meter.settle()
            metrics = evaluate(run)
        # Asked once a step: a signal between two questions would end the run unsaved.
        stopping = run.stop.requested
        if stopping or is_due(progress.step, run.save_every, progress.num_steps):
            meter.settle()
            save(run, metrics)

    _tell(run, lambda observer: observer.on_end(progress))
    return progress


def training_step(run: Training, window: Sequence[Batch]) -> StepOutcome:
    """Take one optimiser step over a window of micro-batches.

    The supervised tokens of the whole window are counted before the first forward pass. Each
    micro-batch's summed loss is divided by that one number, so that a token counts the same
    whichever micro-batch it stands in: one batch of 8 equals 8 batches of 1. Dividing each
    micro-batch by its own count, and then by their number, would not.

    Nothing here waits for the device, but `Update.take` where it reads each step.

    Args:
        run: What is trained, and with what.
        window: Micro-batches of one step.

    Raises:
        RunError: As `train`.
    """
    weight = float(sum(run.objective.weight(batch) for batch in window))
    rate = run.rate(run.progress.step)
    set_learning_rate(run.optimizer, rate)
    total = run.micro_batches.retry(lambda: add_gradients(run, window, weight), run.optimizer)
    grad_norm = clip_gradients(run)
    step = run.progress.step + 1
    run.update.take(step, run.optimizer, run.precision, total, grad_norm)
    run.optimizer.zero_grad(set_to_none=True)
    return StepOutcome(
        step=step,
        loss_total=total,
        loss_weight=weight,
        num_tokens=sum(map(count_tokens, window)),
        num_supervised=sum(map(count_supervised, window)),
        num_rows=sum(map(count_rows, window)),
        grad_norm=grad_norm,
        learning_rate=rate,
    )


def add_gradients(run: Training, window: Sequence[Batch], weight: float) -> torch.Tensor:
    """Run the model forward and backward over a window, and return its summed loss.

    Args:
        run: What is trained.
        window: Micro-batches of one step.
        weight: What the loss is divided by before its gradient is taken.
    """
    total = torch.zeros((), device=run.device)
    for batch in run.micro_batches.cut(window):
        on_device = {name: t.to(run.device, non_blocking=True) for name, t in batch.items()}
        with run.precision.autocast():
            loss = run.objective(run.model, on_device)
        # A window whose weights are all zero teaches nothing, and must not divide by zero.
        run.precision.backward(loss.total / max(weight, 1e-12))
        total += loss.total.detach()
    return total


def clip_gradients(run: Training) -> torch.Tensor:
    """Measure the gradient's length and shorten it to `max_grad_norm`."""
    run.precision.unscale(run.optimizer)
    limit = run.max_grad_norm or math.inf
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    return torch.nn.utils.clip_grad_norm_(trained, limit)


def advance(progress: Progress, outcome: StepOutcome, epochs_done: float) -> None:
    """Count one finished step."""
    progress.step += 1
    progress.epoch = epochs_done
    progress.num_tokens_seen += outcome.num_tokens
    progress.num_supervised_seen += outcome.num_supervised
    progress.num_rows_seen += outcome.num_rows


def evaluate(run: Training) -> dict[str, float]:
    """Measure the model on the validation rows, remember the best loss, tell the observers."""
    if run.evaluator is None:
        return {}
    metrics = run.evaluator(run.model)
    remember_best(run.progress, metrics)
    record = StepRecord(run.progress.step, run.progress.epoch, metrics)
    _tell(run, lambda observer: observer.on_evaluation(record))
    return metrics


def remember_best(progress: Progress, metrics: Mapping[str, float]) -> None:
    """Keep the lowest validation loss; one that is no number is never the best."""
    loss, best = metrics["eval_loss"], progress.best_eval_loss
    if math.isfinite(loss) and (best is None or loss < best):
        progress.best_eval_loss = loss


def save(run: Training, metrics: dict[str, float]) -> None:
    """Write a checkpoint that this exact point can be resumed from."""
    if run.sink is None:
        return
    path = run.sink.save(run.progress, metrics)
    _tell(run, lambda observer: observer.on_checkpoint(run.progress.step, path))


def _tell(run: Training, message: Callable[[Observer], Any]) -> None:
    for observer in run.observers:
        message(observer)
