"""The other loop of the lecture: transformers.Trainer on the same batches and the same objective.

It exists as a reference that `engine/loop.py` is measured against, and for those who want the
Trainer's own machinery. What luthier's loop has beyond it (sealed checkpoints, exact resume) it
does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from luthier.contracts.training import Evaluator, Objective, Observer, Progress, StepRecord
from luthier.core.errors import RunError
from luthier.engine.meter import memory_bytes

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """What the Trainer is given in place of its own data loading and loss.

    Attributes:
        train_loader: Batches of one epoch; its `batch_sampler` knows `set_epoch`.
        num_rows: Training rows (the Trainer wants to know).
        arguments: Everything that is a TrainingArguments field.
    """

    model: Any
    train_loader: DataLoader[Any]
    train_rows: Any
    objective: Objective
    arguments: Mapping[str, Any]
    progress: Progress
    evaluator: Evaluator | None = None
    eval_every: int | None = None
    eval_on_start: bool = False
    observers: Sequence[Observer] = ()


class _ObjectiveTrainer(Trainer):
    """transformers.Trainer with our batches and our loss, through its documented extension points."""

    def __init__(self, run: ReferenceRun, arguments: TrainingArguments) -> None:
        super().__init__(
            model=run.model,
            args=arguments,
            train_dataset=run.train_rows,
            callbacks=[_ObserverBridge(run)],
        )
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
        return loss.total / num_items_in_batch.clamp_min(1e-12)


class _ObserverBridge(TrainerCallback):
    """Hands the Trainer's log to our observers, and evaluates with our evaluator."""

    def __init__(self, run: ReferenceRun) -> None:
        self._run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.progress.num_steps = state.max_steps
        self._tell(lambda observer: observer.on_start(self._run.progress))
        if self._run.eval_on_start:
            self._evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress = self._run.progress
        progress.step, progress.epoch = state.global_step, float(state.epoch or 0.0)
        record = StepRecord(progress.step, progress.epoch)
        self._tell(lambda observer: observer.on_step(record))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        if "loss" in (logs or {}):
            names = ("loss", "learning_rate", "grad_norm")
            metrics = {name: float(logs[name]) for name in names if name in logs}
            metrics["memory_bytes"] = float(memory_bytes())
            record = StepRecord(state.global_step, float(state.epoch), metrics)
            self._tell(lambda observer: observer.on_log(record))
        every = self._run.eval_every
        done = state.global_step
        if "loss" in (logs or {}) and every and (done % every == 0 or done == state.max_steps):
            self._evaluate()

    def _evaluate(self) -> None:
        if self._run.evaluator is None:
            return
        progress = self._run.progress
        metrics = self._run.evaluator(self._run.model)
        record = StepRecord(progress.step, progress.epoch, metrics)
        self._tell(lambda observer: observer.on_evaluation(record))

    def _tell(self, message: Callable[[Observer], Any]) -> None:
        for observer in self._run.observers:
            message(observer)


def train_with_transformers(run: ReferenceRun) -> Progress:
    """Train through transformers.Trainer and return the progress.

    Raises:
        RunError: The Trainer finished on a loss that is not finite (it logs 0.0 and goes on).
    """
    trainer = _ObjectiveTrainer(run, TrainingArguments(**run.arguments))
    result = trainer.train()
    if not torch.isfinite(torch.tensor(result.training_loss)):
        raise RunError(
            f"training ended with the loss {result.training_loss}",
            mend="Lower learning_rate, or use trainer: luthier, which stops at the first such step.",
        )
    _tell_end(run)
    return run.progress


def _tell_end(run: ReferenceRun) -> None:
    for observer in run.observers:
        observer.on_end(run.progress)
