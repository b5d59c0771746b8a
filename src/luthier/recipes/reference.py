"""`trainer: transformers`: the same job through transformers.Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from luthier.batches.collate import CausalLMCollator
from luthier.batches.loading import make_loader
from luthier.batches.sampling import EpochBatchSampler
from luthier.contracts.training import Observer, Progress
from luthier.dataset.prepared import row_lengths
from luthier.engine.schedule import (
    DECAY_TYPE,
    MIN_LR_RATIO,
    cadence,
    count_steps,
    decay_steps,
    warmup_steps,
)
from luthier.engine.settings import AdamWOptimizer, ScheduleSettings
from luthier.engine.transformers_trainer import ReferenceRun, train_with_transformers
from luthier.recipes.job import Job, build_evaluator
from luthier.recipes.run_config import RunConfig


def train_by_reference(job: Job, observers: Sequence[Observer]) -> Progress:
    """Train with transformers.Trainer on the same batches, in the same order.

    It writes no checkpoints and goes on from none: `config_rules.py` refuses such settings.
    """
    config, rows = job.config, job.data.prepared.train
    lengths = row_lengths(rows)
    batches = config.batches
    sampler = EpochBatchSampler(
        lengths, batches.rows_per_batch, config.run.seed, batches.group_by_length
    )
    collate = CausalLMCollator(job.data.tokenizer.pad_token_id)
    per_epoch = math.ceil(len(sampler) / batches.gradient_accumulation_steps)
    training = config.training
    num_steps = count_steps(training.num_train_epochs, per_epoch, training.max_steps)
    run = ReferenceRun(
        model=job.model,
        train_loader=make_loader(rows, sampler, collate, batches),
        train_rows=rows,
        objective=job.training_objective(),
        arguments=trainer_arguments(job, num_steps),
        progress=Progress(num_steps=num_steps),
        evaluator=build_evaluator(job),
        eval_every=cadence(training.eval_strategy, training.eval_steps),
        eval_on_start=training.eval_on_start,
        observers=observers,
    )
    # The Trainer switches the cache off in the model's config, which is saved with the model.
    use_cache = getattr(job.model.config, "use_cache", None)
    progress = train_with_transformers(run)
    if use_cache is not None:
        job.model.config.use_cache = use_cache
    return progress


def trainer_arguments(job: Job, num_steps: int) -> dict[str, Any]:
    """Say our settings in TrainingArguments' words.

    Args:
        job: Settings, folder, device and precision.
        num_steps: Optimiser steps of the whole run.
    """
    config: RunConfig = job.config
    schedule, training = config.schedule, config.training
    arguments: dict[str, Any] = {
        "output_dir": str(job.folder),
        "max_steps": num_steps,
        "per_device_train_batch_size": config.batches.rows_per_batch,
        "gradient_accumulation_steps": config.batches.gradient_accumulation_steps,
        "learning_rate": schedule.learning_rate,
        **schedule_arguments(schedule, num_steps),
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.max_grad_norm,
        "logging_steps": training.logging_steps,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "seed": config.run.seed,
        "use_cpu": job.device.type == "cpu",
        "bf16": job.precision.name == "bf16",
        "fp16": job.precision.name == "fp16",
    }
    optimizer = config.optimizer
    if not isinstance(optimizer, AdamWOptimizer):
        # config_rules.py lets no other through.
        return arguments | {"optim": "adafactor"}
    return arguments | {
        "optim": "adamw_torch_fused",
        "adam_beta1": optimizer.adam_beta1,
        "adam_beta2": optimizer.adam_beta2,
        "adam_epsilon": optimizer.adam_epsilon,
    }


def schedule_arguments(schedule: ScheduleSettings, num_steps: int) -> dict[str, Any]:
    """Say a schedule in TrainingArguments' words.

    Args:
        schedule: Shape and warm-up.
        num_steps: Optimiser steps of the whole run.
    """
    name, lowest = schedule.lr_scheduler_type, schedule.min_lr_ratio
    details: dict[str, Any] = {}
    if name == "constant":
        name = "constant_with_warmup"
    elif name == "cosine_with_min_lr":
        details = {"min_lr_rate": MIN_LR_RATIO if lowest is None else lowest}
    elif name == "polynomial":
        lr_end = (lowest or 0.0) * schedule.learning_rate
        details = {"lr_end": lr_end, "power": schedule.lr_power or 1.0}
    elif name == "warmup_stable_decay":
        details = {
            "num_decay_steps": decay_steps(schedule, num_steps),
            "decay_type": schedule.lr_decay_type or DECAY_TYPE,
            "min_lr_ratio": lowest or 0.0,
        }
    return {
        "lr_scheduler_type": name,
        "lr_scheduler_kwargs": details,
        "warmup_steps": warmup_steps(schedule, num_steps),
    }
