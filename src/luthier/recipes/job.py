"""A run's parts, built from its settings: data, model, precision, evaluator.

The one place that knows the concrete class of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from luthier.batches.collate import Collate
from luthier.batches.stream import evaluation_batches
from luthier.contracts.notice import Notice
from luthier.contracts.training import Evaluator, Objective
from luthier.core.seeds import derive_seed
from luthier.dataset.prepared import row_lengths
from luthier.engine.memory import MicroBatches
from luthier.engine.precision import Precision, choose_device, choose_precision
from luthier.evaluation.validation_loss import ValidationLoss
from luthier.models.adapters import ParameterCount, apply_tuning, count_parameters
from luthier.models.embedding_noise import add_embedding_noise
from luthier.models.liger import use_liger_kernels
from luthier.models.load import load_model
from luthier.models.rms_norm import lighten_norms
from luthier.models.save import TakenModel, save_model, take_model
from luthier.models.tied_embedding import use_sparse_gradient
from luthier.models.vocabulary import add_token_rows
from luthier.objectives.head import Head
from luthier.recipes.data import PreparedRun, prepare_data
from luthier.recipes.execution import settle_execution
from luthier.recipes.first_batches import first_batches
from luthier.recipes.frozen_layers import with_frozen_layers_cached
from luthier.recipes.packed import refuse_unpackable, settle_packing
from luthier.recipes.processes import deepspeed_notice
from luthier.recipes.resume import run_fingerprint, settle_differences
from luthier.recipes.run_config import RunConfig
from luthier.recipes.screen import Screen
from luthier.recipes.stages import stage_of


@dataclass(frozen=True, slots=True)
class Job:
    """A run's parts once they are built, before the first step."""

    config: RunConfig
    folder: Path
    data: PreparedRun
    model: Any
    parameters: ParameterCount
    device: torch.device
    precision: Precision
    fingerprint: Mapping[str, str]
    notices: tuple[Notice, ...]
    head: Head | None = None

    def objective(self) -> Objective:
        """Return the run's objective, as a model is measured by it."""
        return stage_of(self.config).objective(self.config, self.head, False)

    def training_objective(self) -> Objective:
        """Return the objective with what the settings add to it in training alone."""
        return stage_of(self.config).objective(self.config, self.head, True)

    def collate(self) -> Collate:
        """Return what makes batches of the run's rows."""
        layout = stage_of(self.config).layout
        return layout.collator(self.config.batches, self.data.tokenizer.pad_token_id)


def build_job(config: RunConfig, folder: Path, checkpoint: Path | None, screen: Screen) -> Job:
    """Prepare the data, load the model, and choose what is trained in which precision.

    Raises:
        LuthierError: The data, the model or the DeepSpeed file can't be used, or the checkpoint
            belongs to another run. What is quick to find is found first.
    """
    stage_of(config).check(config)
    device = choose_device()
    config, packing_notice = settle_packing(config)
    precision, precision_notice = choose_precision(config.training, device)
    sharding_notice = deepspeed_notice(config.run.deepspeed)
    data = prepare_data(config, screen)
    fingerprint = run_fingerprint(config, data.prepared.manifest["key"], precision.name)
    changes: tuple[Notice, ...] = ()
    if checkpoint is not None:
        changes = settle_differences(checkpoint, fingerprint, config.checkpoints.changes)
    torch.manual_seed(derive_seed(config.run.seed, "weights"))
    screen.say(f"Loading {config.model.model_name_or_path}")
    batches = [] if checkpoint else first_batches(config, data)
    if batches:
        screen.say(f"Adapters begin from the inputs of {len(batches)} batches (lora_init: eva)")
    loaded = load_tuned(config, data.new_token_ids, checkpoint, device, precision, batches)
    model, head = loaded.model, loaded.head
    with precision.autocast():
        head, cache_notice = with_frozen_layers_cached(
            head, config, data.prepared, folder, screen.say
        )
    notices = (*data.notices, *changes, precision_notice, packing_notice, sharding_notice)
    notices += (*loaded.notices, cache_notice)
    notices += stage_of(config).ignored_columns(data.prepared.train)
    rows = row_lengths(data.prepared.train)
    settings, lengths = stage_of(config).as_computed(config, rows)
    notices += settle_execution(settings, model, head, lengths, device=device, precision=precision)
    found = tuple(notice for notice in notices if notice is not None)
    for notice in found:
        screen.notice(notice)
    parameters = count_parameters(model)
    screen.model(parameters, device, precision)
    return Job(config, folder, data, model, parameters, device, precision, fingerprint, found, head)


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A model with what is trained of it, as it stands before a step.

    Attributes:
        head: Its head, if it could be found.
        notices: What was replaced, by something or by nothing.
    """

    model: Any
    head: Head | None
    notices: tuple[Notice | None, ...]


def load_tuned(
    config: RunConfig,
    new_token_ids: Sequence[int],
    checkpoint: Path | None,
    device: torch.device,
    precision: Precision,
    batches: Sequence[Mapping[str, torch.Tensor]] = (),
) -> TunedModel:
    """Load the model of a run as its settings tune it.

    Args:
        config: The settings, as `settle_packing` gives them.
        new_token_ids: Of the tokens that the settings add.
        checkpoint: Where its weights come from; None: as they are before the first step.
        device: Where it goes.
        precision: What it computes in.
        batches: What its adapters begin from, where they begin from the data.

    Raises:
        LuthierError: It can't be loaded, or not be tuned or packed in this way.
    """
    is_lora, stage = config.tuning.finetuning_type == "lora", stage_of(config)
    # What is trained is kept in float32; a frozen base may as well be stored as it is computed.
    dtype = precision.dtype if is_lora else torch.float32
    weights = str(checkpoint / "model") if checkpoint else None
    loaded = load_model(
        config.model,
        config.quantization,
        device=device,
        dtype=dtype,
        weights_from=None if is_lora else weights,
        packed=config.batches.is_packed,
        kind=stage.model_kind,
    )
    if is_lora or weights is None:  # A checkpoint of a whole model has its rows.
        add_token_rows(loaded.model, new_token_ids)
    liger_notice = None
    if config.model.use_liger_kernel:
        liger_notice = use_liger_kernels(loaded.model, device)
    adapter, merged = _adapters(config)
    model = apply_tuning(
        loaded.model,
        config.tuning,
        (weights or adapter) if is_lora else None,
        merged=() if checkpoint else merged,
        is_checkpoint=checkpoint is not None,
        new_token_ids=new_token_ids,
        first_batches=batches,
    )
    if config.run.trainer == "luthier":
        _lighten(model, is_lora, has_liger=config.model.use_liger_kernel and not liger_notice)
    if config.objective.neftune_noise_alpha:
        add_embedding_noise(model, config.objective.neftune_noise_alpha)
    if config.batches.is_packed:
        refuse_unpackable(model, config)
    head, head_notice = None, None
    # Under autocast, or on several GPUs, the Trainer wraps the model: a head would go round that.
    is_plain = device.type == "cpu" and precision.name == "fp32"
    if config.run.trainer == "luthier" or is_plain:
        with precision.autocast():
            head, head_notice = stage.find_head(model)
    return TunedModel(model, head, (*loaded.notices, liger_notice, head_notice))


def _adapters(config: RunConfig) -> tuple[str | None, list[str]]:
    """Return the adapter that is trained on, if one is, and those that are merged before."""
    names = config.model.adapters
    if not config.model.trains_on_adapter:
        return None, names
    return names[-1], names[:-1]


def _lighten(model: Any, is_lora: bool, *, has_liger: bool) -> None:
    if not has_liger:  # Liger has norms of its own.
        lighten_norms(model)
    use_sparse_gradient(model)
    if is_lora:
        from luthier.models.lora_linear import share_lora_products

        share_lora_products(model)


def build_evaluator(
    job: Job,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Notice], None] = lambda notice: None,
) -> Evaluator | None:
    """Return what measures the model on the validation rows, if there are any.

    Args:
        job: Model, rows and settings.
        is_stopped: Asked between batches: whether to give up, because the run is to stop.
        tell: Told when memory runs out and batches are cut.
    """
    rows = job.data.prepared.val
    if rows is None:
        return None
    collate, stage = job.collate(), stage_of(job.config)
    if stage.measure is not None:
        return stage.measure(job, rows, is_stopped)
    lengths = row_lengths(rows)
    loss = ValidationLoss(
        batches=lambda: evaluation_batches(rows, lengths, collate, job.config.batches),
        objective=job.objective(),
        precision=job.precision,
        device=job.device,
        is_stopped=is_stopped,
        micro_batches=MicroBatches(stage.layout.split, None, tell, "per_device_eval_batch_size"),
    )
    return stage.evaluator(loss, rows)


def model_taker(job: Job) -> Callable[[bool], TakenModel]:
    """Return a function that takes the model as it stands; True: as a copy, to be written later."""
    stops = job.data.stop_token_ids
    return lambda as_copy: take_model(job.model, job.data.tokenizer, stops, as_copy=as_copy)


def model_writer(job: Job) -> Callable[[Path], None]:
    """Return a function that writes the model as it stands into a folder."""
    return lambda folder: save_model(job.model, job.data.tokenizer, folder, job.data.stop_token_ids)
