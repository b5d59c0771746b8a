"""What a run pauses for: an evaluation, and the model's answers to fixed prompts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from luthier.contracts.training import (
    Observer,
    Progress,
    SampleRecord,
    StepRecord,
    StopAskedError,
)

if TYPE_CHECKING:
    from luthier.engine.loop import Training


def evaluate(run: Training) -> dict[str, float]:
    """Measure the model on the validation rows, remember the best loss, tell the observers.

    Returns:
        What was measured: nothing without validation rows, and where somebody asked to stop.
    """
    if run.evaluator is None:
        return {}
    try:
        metrics = run.evaluator(run.model)
    except StopAskedError:
        run.progress.evaluation_is_due = True
        return {}
    remember_best(run.progress, metrics)
    run.guards.see_evaluation(run.progress.step, metrics["eval_loss"])
    record = StepRecord(run.progress.step, run.progress.epoch, metrics)
    tell(run, lambda observer: observer.on_evaluation(record))
    return metrics


def sample(run: Training) -> None:
    """Let the model answer the fixed prompts, and tell the observers what it said.

    They stay due where somebody asked to stop meanwhile.
    """
    progress, started_s = run.progress, time.perf_counter()
    if run.sampler is not None:
        try:
            samples = run.sampler(run.model)
        except StopAskedError:
            return
        seconds = time.perf_counter() - started_s
        record = SampleRecord(progress.step, progress.epoch, samples, seconds)
        tell(run, lambda observer: observer.on_samples(record))
    progress.samples_are_due = False


def remember_best(progress: Progress, metrics: Mapping[str, float]) -> None:
    """Keep the lowest validation loss; one that is no number is never the best."""
    loss, best = metrics["eval_loss"], progress.best_eval_loss
    if math.isfinite(loss) and (best is None or loss < best):
        progress.best_eval_loss = loss


def tell(run: Training, message: Callable[[Observer], Any]) -> None:
    """Tell all observers of a run, in their order."""
    for observer in run.observers:
        message(observer)
