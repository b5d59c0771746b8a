"""The training loop, from top to bottom as on a lecture's slide, and right where slides are naive.

Comes in: a model, windows of batches, an objective, an optimiser. Goes out: a trained model, and a
call to the observers for everything that happened. The loop knows no file, no template, no adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from luthier.contracts.counting import count_rows, count_supervised, count_tokens
from luthier.contracts.training import (
    Accumulation,
    BatchSource,
    CheckpointSink,
    Evaluator,
    Objective,
    Observer,
    Progress,
    Sampler,
    StepRecord,
    StopAskedError,
    StopRequest,
)
from luthier.engine.guards import Guards
from luthier.engine.look import evaluate, sample, tell
from luthier.engine.memory import MicroBatches
from luthier.engine.meter import Meter, StepOutcome
from luthier.engine.optimizer import set_learning_rate
from luthier.engine.precision import Precision
from luthier.engine.schedule import Every, Schedule, is_due
from luthier.engine.update import ReadThenStep, Update

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that a run steps with. The loop changes the model, the optimiser and `progress`.

    Attributes:
        rate: Learning rate as a function of finished steps.
        eval_every: How often to evaluate.
        save_every: How often to write a checkpoint.
        stop: Asked between micro-batches and after each step; a true answer means: checkpoint,
            then return.
        update: Takes a step if its numbers are finite; `choose_update` knows which way is best.
        micro_batches: Cuts a window to what fits the memory.
        accumulation: What is done of the first step, where a run goes on in the middle of it.
        guards: Judges the numbers of each step and of each evaluation.
        meter: Holds the steps since the last line of the log.
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
    accumulation: Accumulation = field(default_factory=Accumulation)
    guards: Guards = field(default_factory=Guards)
    meter: Meter = field(default_factory=Meter)
    eval_every: Every = None
    save_every: Every = None
    eval_on_start: bool = False
    evaluator: Evaluator | None = None
    sample_every: Every = None
    sampler: Sampler | None = None
    sink: CheckpointSink | None = None
    observers: Sequence[Observer] = ()


def train(run: Training) -> Progress:
    """Train until the last step, or until somebody asks to stop.

    Returns:
        The progress; if it is not `finished`, the run was stopped and can go on.

    Raises:
        DivergedError: Losses or gradients are not finite numbers, step after step. Those steps were
            not taken. On a GPU it is found out when the next line of the log is due, before an
            evaluation and before a checkpoint; the steps after them were taken.
        RunError: A row does not fit the memory, or a checkpoint could not be written.
    """
    progress, meter = run.progress, run.meter
    windows = run.batches.windows()
    run.model.train()
    tell(run, lambda observer: observer.on_start(progress))
    is_owed = progress.evaluation_is_due
    if run.eval_on_start and progress.step == 0 and progress.best_eval_loss is None:
        evaluate(run)
    if progress.samples_are_due and not is_owed:
        sample(run)

    stopping = after_step(run) if is_owed else run.stop.requested
    while progress.step < progress.num_steps and not stopping and not run.guards.wants_end:
        meter.start()
        with meter.timing("data"):
            window = next(windows)
        try:
            outcome = training_step(run, window)
        except StopAskedError:
            run.batches.take_back()
            save(run, {})
            break
        meter.add(outcome)
        advance(progress, outcome, run.batches.epochs_done())
        known = {}
        if run.update.reads_each_step:
            known = {"loss": outcome.loss}
            settle(run)
        record = StepRecord(progress.step, progress.epoch, known)
        tell(run, lambda observer, record=record: observer.on_step(record))
        if is_due(progress, run.logging_steps):
            settle(run)
            log = StepRecord(progress.step, progress.epoch, meter.read())
            tell(run, lambda observer, log=log: observer.on_log(log))
        stopping = after_step(run)

    progress.ended_early = run.guards.wants_end
    if run.sink is not None:
        run.sink.wait()
        announce_checkpoints(run)
    tell(run, lambda observer: observer.on_end(progress))
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
        StopAskedError: Somebody asked to stop in the middle of the step. `run.accumulation` and the
            gradients hold what is done of it.
        RunError: A row does not fit the memory.
    """
    step, done = run.progress.step + 1, run.accumulation
    if step in run.guards.pass_over:
        window = ()

    def forget() -> None:
        run.optimizer.zero_grad(set_to_none=True)
        done.clear()

    weight = float(sum(run.objective.weight(batch) for batch in window))
    rate = run.rate(run.progress.step)
    set_learning_rate(run.optimizer, rate)
    run.micro_batches.retry(lambda: add_gradients(run, window, weight, done), forget)
    total = torch.zeros((), device=run.device) if done.loss_total is None else done.loss_total
    metrics = done.metrics
    grad_norm = torch.zeros((), device=run.device)
    with run.meter.timing("optimizer"):
        if window:
            grad_norm = clip_gradients(run)
            run.update.take(run.optimizer, run.precision, total, grad_norm)
        forget()
    return StepOutcome(
        step=step,
        loss_total=total,
        loss_weight=weight,
        num_tokens=sum(map(count_tokens, window)),
        num_supervised=sum(map(count_supervised, window)),
        num_rows=sum(map(count_rows, window)),
        grad_norm=grad_norm,
        learning_rate=rate,
        rows=run.batches.window_rows(),
        metrics=metrics,
    )


def add_gradients(
    run: Training, window: Sequence[Batch], weight: float, done: Accumulation
) -> None:
    """Run the model forward and backward over a window, from where `done` stands.

    Args:
        run: What is trained.
        window: Micro-batches of one step.
        weight: What the loss is divided by before its gradient is taken.
        done: Counts micro-batches and sums their losses; changed in place.

    Raises:
        StopAskedError: Somebody asked to stop between two micro-batches.
    """
    for number, batch in enumerate(run.micro_batches.cut(window), start=1):
        if number <= done.num_done:
            continue
        if done.num_done and run.stop.requested:
            raise StopAskedError
        on_device = {name: t.to(run.device, non_blocking=True) for name, t in batch.items()}
        with run.meter.timing("forward"), run.precision.autocast():
            loss = run.objective(run.model, on_device)
        # A window whose weights are all zero teaches nothing, and must not divide by zero.
        with run.meter.timing("backward"):
            run.precision.backward(loss.total / max(weight, 1e-12))
        done.add(loss)
        run.stop.has_work = True


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


def after_step(run: Training) -> bool:
    """Evaluate, sample and save as far as is due, and return whether somebody wants to stop."""
    progress = run.progress
    metrics: dict[str, float] = {}
    progress.evaluation_is_due = False
    if is_due(progress, run.eval_every):
        settle(run)
        metrics = evaluate(run)
    progress.samples_are_due |= is_due(progress, run.sample_every)
    if progress.samples_are_due and not progress.evaluation_is_due:
        sample(run)
    # Asked once a step: a signal between two questions would end the run unsaved.
    stopping = run.stop.requested
    is_wanted = run.stop.take_checkpoint_request() or stopping or run.guards.wants_end
    if is_wanted or is_due(progress, run.save_every):
        save(run, metrics)
    announce_checkpoints(run)
    return stopping


def settle(run: Training) -> None:
    """Fetch the numbers of the steps that nobody has looked at yet, and judge them.

    Raises:
        DivergedError: As `train`.
    """
    for outcome, loss_total, grad_norm in run.meter.settle():
        run.guards.see_step(outcome, loss_total, grad_norm)


def save(run: Training, metrics: Mapping[str, float]) -> None:
    """Write a checkpoint that this exact point can be resumed from."""
    settle(run)
    if run.sink is not None:
        run.sink.save(run.progress, metrics)


def announce_checkpoints(run: Training) -> None:
    """Tell the observers which checkpoints were sealed meanwhile."""
    for sealed in run.sink.sealed() if run.sink is not None else ():
        tell(run, lambda observer, sealed=sealed: observer.on_checkpoint(*sealed))
