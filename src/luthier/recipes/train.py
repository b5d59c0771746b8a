"""One fine-tuning job, from settings to a saved model: the wiring, and nothing but the wiring.

Cheap checks come first, so that a wrong path is found before a model is loaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from luthier.batches.cutting import split_batch
from luthier.batches.flat import build_collator
from luthier.batches.stream import BatchStream, longest_batch
from luthier.checkpoints.store import CheckpointStore, RunState
from luthier.contracts.notice import Notice
from luthier.contracts.training import Observer, Progress, StopRequest
from luthier.core.errors import RunError
from luthier.core.seeds import derive_seed
from luthier.dataset.prepared import row_lengths
from luthier.engine.fitting import fit_micro_batches
from luthier.engine.loop import Training, train
from luthier.engine.memory import MicroBatches
from luthier.engine.metrics_file import MetricsFile, read_metrics
from luthier.engine.optimizer import build_optimizer
from luthier.engine.schedule import build_schedule, cadence
from luthier.engine.update import choose_update
from luthier.models.load import check_model_path
from luthier.recipes.frozen_layers import frozen_layers_run, memory_to_come, remember_again
from luthier.recipes.job import Job, build_evaluator, build_job, model_writer
from luthier.recipes.machine import memory
from luthier.recipes.manifest import describe_run, earlier_parts, now, write_manifest
from luthier.recipes.processes import refuse_many_processes
from luthier.recipes.reference import train_by_reference
from luthier.recipes.resume import find_checkpoint
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import (
    METRICS,
    clear_earlier_run,
    open_run_folder,
    replaces_earlier_run,
    write_run_yaml,
)
from luthier.recipes.screen import Screen

_AS_BEFORE = "the size of the checkpoint that the run goes on from"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run came to.

    Attributes:
        evaluations: All of the run, those before a stop included: step and `eval_...` metrics.
        seconds: Time of this process's part.
    """

    folder: Path
    progress: Progress
    evaluations: tuple[dict[str, float], ...]
    seconds: float

    @property
    def first_eval(self) -> dict[str, float] | None:
        """The earliest evaluation: of the untrained model, where its step is 0."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def last_eval(self) -> dict[str, float] | None:
        """The newest evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def finished(self) -> bool:
        """Whether the run reached its last step."""
        return self.progress.step >= self.progress.num_steps


def run_training(
    config: RunConfig, command: Sequence[str], screen: Screen, stop: StopRequest
) -> TrainResult:
    """Train a model as the settings say, and save it.

    Args:
        config: All settings.
        command: The command line, for the manifest.
        screen: Shows what happens.
        stop: Asked after each step.

    Returns:
        The outcome; an unfinished run has a checkpoint to go on from.

    Raises:
        LuthierError: Anything that the user can mend, before training where it can be known.
    """
    started_s = time.perf_counter()
    refuse_many_processes(os.environ)
    check_model_path(config.model)
    folder = open_run_folder(config)
    checkpoint = find_checkpoint(config, folder, screen.say)
    job = build_job(config, folder, checkpoint, screen)
    if replaces_earlier_run(folder, config.checkpoints):
        clear_earlier_run(folder)
    facts = describe_run(config, command, job.data.prepared.manifest, job.notices)
    if checkpoint is not None:
        facts |= {"goes_on_from": str(checkpoint), "earlier": earlier_parts(folder)}
    write_run_yaml(folder, config)
    write_manifest(folder, facts)

    def tell(notice: Notice) -> None:
        screen.notice(notice)
        facts["notices"].append(notice.as_json())
        write_manifest(folder, facts)

    observers = (screen, MetricsFile(folder / METRICS))
    if config.run.trainer == "transformers":
        progress = train_by_reference(job, observers)
    else:
        progress = train_by_loop(job, checkpoint, observers, stop, tell)
    seconds = time.perf_counter() - started_s
    result = TrainResult(folder, progress, read_evaluations(folder / METRICS), seconds)
    if result.finished:
        save_final_model(job, folder)
    outcome = {"steps": progress.step, "finished": result.finished, "seconds": round(seconds, 3)}
    outcome |= {"eval": result.last_eval}
    write_manifest(folder, facts | {"ended": now(), "outcome": outcome})
    return result


def save_final_model(job: Job, folder: Path) -> None:
    """Write the trained model to the top of the run's folder.

    Raises:
        RunError: The disk is full, or the folder was closed meanwhile.
    """
    try:
        model_writer(job)(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the trained model could not be written: {error}",
            where=str(folder),
            mend="Make room and go on with --resume_from_checkpoint: the checkpoints are intact.",
        ) from error


def train_by_loop(
    job: Job,
    checkpoint: Path | None,
    observers: Sequence[Observer],
    stop: StopRequest,
    tell: Callable[[Notice], None],
) -> Progress:
    """Train with luthier's own loop.

    Args:
        job: What is trained.
        checkpoint: Where to go on from.
        observers: Told what happens.
        stop: Asked after each step.
        tell: Told what becomes of the batch size.
    """
    config, rows = job.config, job.data.prepared.train
    collate = build_collator(config.batches, job.data.tokenizer.pad_token_id)
    lengths, capacity = row_lengths(rows), config.tokens.cutoff_len
    batches = BatchStream(rows, lengths, collate, config.batches, config.run.seed, capacity)
    micro_batches = MicroBatches(split_batch, tell=tell)
    optimizer = build_optimizer(
        job.model,
        config.optimizer,
        learning_rate=config.schedule.learning_rate,
        weight_decay=config.schedule.weight_decay,
    )
    training, per_epoch = config.training, batches.windows_per_epoch()
    num_steps = training.max_steps or batches.num_windows(training.num_train_epochs)
    store = CheckpointStore(
        job.folder,
        RunState(optimizer, batches, job.precision.scaler, job.fingerprint, micro_batches),
        model_writer(job),
        config.checkpoints.save_total_limit,
    )
    progress = Progress(num_steps=num_steps)
    torch.manual_seed(derive_seed(config.run.seed, "training"))
    if checkpoint is not None:
        store.load(checkpoint, progress)
    evaluator = build_evaluator(job)
    parts = Training(
        model=job.model,
        batches=batches,
        objective=job.objective(config.objective.label_smoothing_factor),
        optimizer=optimizer,
        rate=build_schedule(config.schedule, num_steps),
        precision=job.precision,
        device=job.device,
        progress=progress,
        max_grad_norm=config.schedule.max_grad_norm,
        logging_steps=training.logging_steps,
        stop=stop,
        update=choose_update(optimizer, job.precision, job.device),
        micro_batches=micro_batches,
        eval_every=cadence(training.eval_strategy, training.eval_steps, per_epoch),
        save_every=cadence(training.save_strategy, training.save_steps, per_epoch),
        eval_on_start=training.eval_on_start,
        evaluator=evaluator,
        sink=store,
        observers=observers,
    )
    if micro_batches.max_positions is not None:
        tell(micro_batches.notice(str(config.batches.per_device_train_batch_size), _AS_BEFORE))
    elif config.batches.is_auto:
        worst = longest_batch(rows, lengths, collate, config.batches, capacity)
        # Remembered activations will take their share later.
        later = memory_to_come(job.head)
        with frozen_layers_run(job.head):
            tell(fit_micro_batches(parts, worst, lambda: memory()["available_bytes"] - later))
    if checkpoint is not None:
        earlier = BatchStream(rows, lengths, collate, config.batches, config.run.seed, capacity)
        remember_again(job.head, parts, earlier, tell)
    return train(parts)


def read_evaluations(metrics: Path) -> tuple[dict[str, float], ...]:
    """Return the evaluations of a run in their order: the step and what was measured."""
    return tuple(
        {n: float(v) for n, v in record.items() if n == "step" or n.startswith("eval_")}
        for record in read_metrics(metrics)
        if record["kind"] == "eval"
    )
