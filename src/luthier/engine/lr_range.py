"""A learning-rate range test: a few steps of a training, at a rate that grows from step to step.

Comes in: a training before its first step. Goes out: the loss after each rate. The model is spoilt
by it. How to read the curve: `lr_suggestion`.

Source: Smith, Cyclical Learning Rates for Training Neural Networks, section 3.3 (arXiv 1506.01186).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal

import torch

from luthier.contracts.training import Progress, SampleRecord, StepRecord, StopRequest
from luthier.engine.guards import Guards
from luthier.engine.loop import Training, train
from luthier.engine.lr_suggestion import RangeCurve, smooth, smoothing_beta
from luthier.engine.memory import random_states, set_random_states
from luthier.engine.schedule import Schedule
from luthier.engine.settings import GuardSettings

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

DIVERGED_RISE = 3.0
"""The test ends once the smoothed loss lies so many times the untrained model's loss above the
best. Where the loss has hardly fallen, that is four times the best, which is where fastai ends;
where it has fallen to nearly nothing, four times that would be noise."""

End = Literal["max_lr", "diverged", "not_finite", "stopped"]
"""Why a test ended: at its last rate, by a loss that rose or is no number, or by the user."""


def exponential_rates(min_lr: float, max_lr: float, num_rates: int) -> Schedule:
    """Return rates that grow from step to step by the same factor.

    Args:
        min_lr: The rate of the first step.
        max_lr: The rate of step `num_rates`, and of each after it.
        num_rates: At least 2.
    """

    def rate(step: int) -> float:
        share = min(1.0, step / (num_rates - 1))
        return min_lr ** (1.0 - share) * max_lr**share

    return rate


@dataclass(slots=True)
class RangeWatch:
    """Collects the loss after each rate, and ends the test; implements Observer and StopRequest.

    A step's loss is computed before its update, so it belongs to the rate of the step before.

    Attributes:
        untrained: Loss of the untrained model on each step's rows. A step's rows may be easier
            than another's: what counts is how far its loss is from the untrained model's.
        num_rates: Rates of the whole test.
        user: Whether somebody else wants to stop.
        may_overflow: A step that is skipped is no end: float16 gradients overflow now and then.
    """

    untrained: Sequence[float]
    num_rates: int
    user: StopRequest
    may_overflow: bool = False
    has_work: bool = False
    end: End | None = None
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _loss: float | None = None
    _rate: float | None = None

    @property
    def start(self) -> float:
        """The untrained model's mean loss, which the curve begins at."""
        return sum(self.untrained) / len(self.untrained)

    @property
    def requested(self) -> bool:
        """Whether the test is at its end, or somebody wants it to be."""
        return self.end is not None or self.user.requested

    def take_checkpoint_request(self) -> bool:
        """Forget such a request: a test writes no checkpoint."""
        self.user.take_checkpoint_request()
        return False

    def on_start(self, progress: Progress) -> None:
        """Let the first signal end the test with what is measured by then."""
        self.user.has_work = True

    def on_step(self, record: StepRecord) -> None:
        """Take the loss, where it is known already."""
        self._loss = record.metrics.get("loss")

    def on_log(self, record: StepRecord) -> None:
        """Take one step into account; the log has a line for each."""
        metrics = record.metrics
        is_skipped = "skipped_steps" in metrics
        loss = self._loss
        if loss is None:
            loss = math.nan if is_skipped else metrics["loss"]
        if self._rate is not None:
            self._add(self._rate, loss - self.untrained[record.step - 1] + self.start)
        self._rate = metrics["learning_rate"]
        if not math.isfinite(loss) or (is_skipped and not self.may_overflow):
            self.end = "not_finite"

    def _add(self, rate: float, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self.rates.append(rate)
        self.losses.append(loss)
        seen = smooth(self.rates, self.losses, smoothing_beta(self.num_rates)).losses
        if seen[-1] > min(seen) + DIVERGED_RISE * abs(self.start):
            self.end = "diverged"

    def on_evaluation(self, record: StepRecord) -> None:
        """See `Observer`: a test has none."""

    def on_samples(self, record: SampleRecord) -> None:
        """See `Observer`: a test has none."""

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """See `Observer`: a test has none."""

    def on_end(self, progress: Progress) -> None:
        """Say why the test ended, if it was not its losses."""
        if self.end is None:
            self.end = "max_lr" if progress.step >= progress.num_steps else "stopped"

    def curve(self) -> RangeCurve:
        """Return what was measured."""
        has_diverged = self.end in ("diverged", "not_finite")
        return RangeCurve(tuple(self.rates), tuple(self.losses), self.start, has_diverged)


def find_range(
    run: Training,
    *,
    min_lr: float,
    max_lr: float,
    num_steps: int,
    working: Callable[[int, int], None],
) -> RangeWatch:
    """Train a few steps at growing rates. Nothing is evaluated, and nothing is written.

    The rows of all steps are first shown to the untrained model, which takes about a third of the
    time. Without that the curve would show which rows are hard.

    Args:
        run: What is trained, before its first step. Its rate, guards, evaluations and checkpoints
            are left out; its observers are told.
        min_lr: Rate of the first step.
        max_lr: Rate of the last but one: the last step's loss shows what that rate did.
        num_steps: At least 3.
        working: Told how many steps' rows the untrained model has seen, of how many.

    Returns:
        What was measured, and why it ended.

    Raises:
        RunError: A row does not fit the memory.
    """
    watch = RangeWatch(
        untrained=untrained_losses(run, num_steps, working),
        num_rates=num_steps - 1,
        user=run.stop,
        may_overflow=run.guards.may_overflow,
    )
    run.progress.num_steps = num_steps
    # Numbers that go wrong are what the test is looking for, and no reason to complain.
    guards = GuardSettings(max_nonfinite_steps=num_steps, loss_spike_threshold=0.0)
    train(
        replace(
            run,
            rate=exponential_rates(min_lr, max_lr, num_steps - 1),
            guards=Guards(guards, may_overflow=run.guards.may_overflow),
            logging_steps=1,
            stop=watch,
            observers=(watch, *run.observers),
            evaluator=None,
            eval_on_start=False,
            save_every=None,
            sink=None,
        )
    )
    return watch


def untrained_losses(
    run: Training, num_steps: int, working: Callable[[int, int], None]
) -> list[float]:
    """Return the losses of the first steps' rows by the model as it is; nothing is changed.

    Random numbers (dropout, noise on embeddings) are those that the training will draw.

    Args:
        run: What is to be trained; its batches and random generators are put back.
        num_steps: How many.
        working: Told how many are done, of how many.
    """
    position, random = run.batches.get_state(), random_states()
    losses: list[float] = []
    run.model.train()
    with torch.no_grad():
        for window in islice(run.batches.windows(), num_steps):
            losses.append(run.micro_batches.retry(partial(_window_loss, run, window), _nothing))
            working(len(losses), num_steps)
    run.batches.set_state(position)
    set_random_states(random)
    return losses


def _window_loss(run: Training, window: Sequence[Batch]) -> float:
    weight = float(sum(run.objective.weight(batch) for batch in window))
    total = 0.0
    for batch in run.micro_batches.cut(window):
        on_device = {name: t.to(run.device, non_blocking=True) for name, t in batch.items()}
        with run.precision.autocast():
            total += float(run.objective(run.model, on_device).total)
    return total / weight if weight else 0.0


def _nothing() -> None:
    """Forget nothing: without gradients a try that failed has left nothing behind."""
