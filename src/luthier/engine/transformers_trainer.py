"""The other loop of the lecture: transformers.Trainer on the same batches and the same objective.

It exists as a reference that `engine/loop.py` is measured against, and for those who want the
Trainer's own machinery. What luthier's loop has beyond it (sealed checkpoints, exact resume) it
does not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from luthier.contracts.training import Evaluator, Objective, Observer, Progress, StepRecord
from luthier.core.errors import RunError
from luthier.engine.look import remember_best
from luthier.engine.meter import memory_bytes
from luthier.engine.schedule import Every, is_due

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """What the Trainer is given in place of its own data loading and loss.

    Attributes:
        model: What is trained.
        train_loader: Batches of one epoch; its `batch_sampler` knows `set_epoch`.
        train_rows: Training rows (the Trainer wants to know of them, and never reads them).
        objective: The loss.
        arguments: Everything that is a TrainingArguments field.
        progress: Counted on.
        evaluator: Measures the model on the validation rows.
        eval_every: How often to evaluate.
    """

    model: Any
    train_loader: DataLoader[Any]
    train_rows: Any
    objective: Objective
    arguments: Mapping[str, Any]
    progress: Progress
    evaluator: Evaluator | None = None
    eval_every: Every = None
    eval_on_start: bool = False
    observers: Sequence[Observer] = ()


class _ObjectiveTrainer(Trainer):
    """transformers.Trainer with our batches and loss, through its documented extension points."""

    def __init__(self, run: ReferenceRun, arguments: TrainingArguments) -> None:
        super().__init__(
            model=run.model,
            args=arguments,
            train_dataset=run.train_rows,
            callbacks=[_ObserverBridge(run)],
        )
        # The observers show what happens; the Trainer's own display would say it twice.
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self._run = run
        self.model_accepts_loss_kwargs = False
        # The objective is divided over the whole accumulation window already.
        self.loss_is_scaled_for_ga = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._run.train_loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        samples: list[Any] = []
        for _, batch in zip(range(num_batches), epoch_iterator, strict=False):
            samples.append(batch)
        weight = sum((self._run.objective.weight(batch) for batch in samples), torch.zeros(()))
        return samples, weight.to(device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss = self._run.objective(model, inputs)
        progress = self._run.progress
        progress.num_tokens_seen += int(inputs["attention_mask"].sum())
        progress.num_supervised_seen += int(loss.num_tokens)
        progress.num_rows_seen += len(inputs["input_ids"])
        return loss.total / num_items_in_batch.clamp_min(1e-12)


class _ObserverBridge(TrainerCallback):
    """Hands the Trainer's log to our observers, and evaluates with our evaluator."""

    def __init__(self, run: ReferenceRun) -> None:
        self._run = run
        self._evaluated_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.progress.num_steps = state.max_steps
        self._tell(lambda observer: observer.on_start(self._run.progress))
        if self._run.eval_on_start:
            self._evaluate()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The Trainer tells the epoch only to loaders that accelerate has wrapped.
        sampler: Any = self._run.train_loader.batch_sampler
        sampler.set_epoch(round(state.epoch or 0.0))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress = self._run.progress
        progress.step, progress.epoch = state.global_step, float(state.epoch or 0.0)
        record = StepRecord(progress.step, progress.epoch)
        self._tell(lambda observer: observer.on_step(record))
        if is_due(progress, int(args.logging_steps)):
            control.should_log = True  # The evaluation waits for it, as in luthier's own loop.
        else:
            self._evaluate_if_due()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            names = ("loss", "learning_rate", "grad_norm")
            metrics = {name: float(logs[name]) for name in names if name in logs}
            metrics["memory_bytes"] = float(memory_bytes())
            record = StepRecord(state.global_step, float(state.epoch), metrics)
            self._tell(lambda observer: observer.on_log(record))
            self._evaluate_if_due()

    def _evaluate_if_due(self) -> None:
        progress = self._run.progress
        due = is_due(progress, self._run.eval_every)
        if due and self._evaluated_step != progress.step:
            self._evaluated_step = progress.step
            self._evaluate()

    def _evaluate(self) -> None:
        if self._run.evaluator is None:
            return
        progress = self._run.progress
        metrics = self._run.evaluator(self._run.model)
        remember_best(progress, metrics)
        record = StepRecord(progress.step, progress.epoch, metrics)
        self._tell(lambda observer: observer.on_evaluation(record))

    def _tell(self, message: Callable[[Observer], Any]) -> None:
        for observer in self._run.observers:
            message(observer)


def train_with_transformers(run: ReferenceRun) -> Progress:
    """Train through transformers.Trainer and return the progress.

    Raises:
        RunError: The loss stopped being a finite number. (By itself the Trainer would put the mean
            of earlier losses in its place, and train to the end.)
    """
    fields: dict[str, Any] = {**run.arguments, "logging_nan_inf_filter": False}
    result = _ObjectiveTrainer(run, TrainingArguments(**fields)).train()
    if not math.isfinite(result.training_loss):
        raise RunError(
            f"training ended with the loss {result.training_loss}",
            mend="Lower learning_rate. trainer: luthier stops before the first such step.",
        )
    _tell_end(run)
    return run.progress


def _tell_end(run: ReferenceRun) -> None:
    for observer in run.observers:
        observer.on_end(run.progress)
