"""A job in luthier's own loop: batches, optimiser, checkpoints and guards, wired together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from luthier.batches.stream import BatchStream, longest_batch
from luthier.checkpoints.store import CheckpointStore, RunState
from luthier.contracts.notice import Notice
from luthier.contracts.training import (
    Accumulation,
    EpochBatches,
    Evaluator,
    Progress,
    Sampler,
    StopRequest,
)
from luthier.core.seeds import derive_seed
from luthier.dataset.prepared import row_lengths
from luthier.engine.fitting import fit_micro_batches
from luthier.engine.guards import Event, Guards
from luthier.engine.loop import Training
from luthier.engine.memory import MicroBatches
from luthier.engine.meter import Meter
from luthier.engine.optimizer import build_optimizer
from luthier.engine.parameter_groups import lr_scales
from luthier.engine.schedule import Every, build_schedule, cadence
from luthier.engine.schedule_free import on_averaged_weights
from luthier.engine.update import choose_update
from luthier.recipes.frozen_layers import frozen_layers_run, memory_to_come, remember_again
from luthier.recipes.job import Job, build_evaluator, model_taker
from luthier.recipes.machine import memory
from luthier.recipes.run_config import RunConfig
from luthier.recipes.samples import build_sampler
from luthier.recipes.stages import stage_of
from luthier.recipes.watching import Watching

_AS_BEFORE = "the size of the run that is gone on with or repeated"


def build_loop_run(
    job: Job,
    checkpoint: Path | None,
    watching: Watching,
    stop: StopRequest,
    tell: Callable[[Notice], None],
    record: Callable[[Event], None],
    micro_batches: MicroBatches,
    pass_over: Iterable[int] = (),
) -> Training:
    """Build what `engine.loop.train` takes, at the start of a run or at one of its checkpoints.

    Args:
        job: What is trained.
        checkpoint: Where to go on from.
        watching: Those who are told what happens.
        stop: Asked while training.
        tell: Told what becomes of the batch size, and what a changed setting means for the rows.
        record: Told what is out of the ordinary.
        micro_batches: Cuts the batches; its size is that of the checkpoint, or the one that it
            comes with, or else found out where the settings say auto.
        pass_over: Steps whose rows are not trained on.
    """
    config = job.config
    batches = _stream(job)
    guards = Guards(config.guards, record, may_overflow=job.precision.scaler is not None)
    meter, accumulation = Meter(), Accumulation()
    optimizer = _optimizer(job)
    parts = {"micro_batches": micro_batches, "guards": guards, "meter": meter, **watching.parts}
    scaler, taker = job.precision.scaler, on_averaged_weights(optimizer, model_taker(job))
    state = RunState(optimizer, batches, scaler, job.fingerprint, parts, accumulation)
    store = CheckpointStore(job.folder, state, taker, config.checkpoints, tell=tell, stop=stop)
    progress = Progress(samples_are_due=_sample_every(config) is not None)
    watching.attach(job, optimizer, guards, progress)
    torch.manual_seed(derive_seed(config.run.seed, "training"))
    if checkpoint is not None:
        store.load(checkpoint, progress)
        if batches.is_changed:
            tell(_account(batches, len(job.data.prepared.train)))
            # What is done of a step belongs to rows that were divided in another way.
            accumulation.clear()
            optimizer.zero_grad(set_to_none=True)
    guards.pass_over |= set(pass_over)
    training = config.training
    progress.num_steps = training.max_steps or _last_step(progress, batches, config)
    run = Training(
        model=job.model,
        batches=batches,
        objective=job.training_objective(),
        optimizer=optimizer,
        rate=build_schedule(config.schedule, progress.num_steps),
        precision=job.precision,
        device=job.device,
        progress=progress,
        max_grad_norm=config.schedule.max_grad_norm,
        logging_steps=training.logging_steps,
        stop=stop,
        update=choose_update(optimizer, job.precision, job.device),
        micro_batches=micro_batches,
        accumulation=accumulation,
        guards=guards,
        meter=meter,
        eval_every=cadence(training.eval_strategy, training.eval_steps),
        save_every=cadence(training.save_strategy, training.save_steps),
        eval_on_start=training.eval_on_start,
        evaluator=_evaluator(job, optimizer, stop, tell),
        sample_every=_sample_every(config),
        sampler=_sampler(job, optimizer, stop),
        sink=store,
        observers=watching.observers,
    )
    _settle_micro_batches(job, run, tell)
    if checkpoint is not None:
        remember_again(job.head, run, _stream(job), tell)
    return run


def _optimizer(job: Job) -> torch.optim.Optimizer:
    config = job.config
    return build_optimizer(
        job.model,
        config.optimizer,
        learning_rate=config.schedule.learning_rate,
        weight_decay=config.schedule.weight_decay,
        scales=lr_scales(job.model, config.tuning),
    )


def _evaluator(
    job: Job,
    optimizer: torch.optim.Optimizer,
    stop: StopRequest,
    tell: Callable[[Notice], None],
) -> Evaluator | None:
    # Like what is saved: of the weights that are to be used, which may be others than are trained.
    found = build_evaluator(job, lambda: stop.requested, tell)
    return found and on_averaged_weights(optimizer, found)


def _last_step(progress: Progress, batches: EpochBatches, config: RunConfig) -> int:
    return max(1, progress.step + batches.windows_left(config.training.num_train_epochs))


def _sample_every(config: RunConfig) -> Every:
    return (config.sampling.sample_steps or "epoch") if config.sampling.sample_prompts else None


def _sampler(job: Job, optimizer: torch.optim.Optimizer, stop: StopRequest) -> Sampler | None:
    found = build_sampler(job, lambda: stop.requested)
    return found and on_averaged_weights(optimizer, found)


def _stream(job: Job) -> EpochBatches:
    config, rows = job.config, job.data.prepared.train
    stage = stage_of(config)
    of_rows = BatchStream(
        rows,
        row_lengths(rows),
        job.collate(),
        config.batches,
        config.run.seed,
        stage.layout.capacity(config.tokens.cutoff_len),
        job.fingerprint["data"],
    )
    return stage.batches(job, of_rows)


def _settle_micro_batches(job: Job, run: Training, tell: Callable[[Notice], None]) -> None:
    config, rows = job.config, job.data.prepared.train
    asked = config.batches.per_device_train_batch_size
    if run.micro_batches.max_positions is not None:
        tell(run.micro_batches.notice(str(asked), _AS_BEFORE))
    elif config.batches.is_auto:
        capacity = stage_of(config).layout.capacity(config.tokens.cutoff_len)
        worst = longest_batch(rows, row_lengths(rows), job.collate(), config.batches, capacity)
        # Remembered activations will take their share later.
        later = memory_to_come(job.head)
        with frozen_layers_run(job.head):
            tell(fit_micro_batches(run, worst, lambda: memory()["available_bytes"] - later))


def _account(batches: EpochBatches, num_rows: int) -> Notice:
    left = batches.rows_left()
    if left == num_rows:
        account = f"none of this epoch's {num_rows:,} rows was trained on before; all follow"
    else:
        account = (
            f"{num_rows - left:,} of this epoch's {num_rows:,} rows were trained on before; "
            f"the other {left:,} follow, and none of them twice"
        )
    return Notice("allow_change", "", "", account)
