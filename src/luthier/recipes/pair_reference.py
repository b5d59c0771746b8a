"""The model before training, for objectives that compare with it: its numbers, added to the rows.

In: a job whose model stands at the start of training, or at one of its checkpoints. Out: the job
with rows that hold the reference's log-probabilities. They are computed once and kept beside the
prepared data, so a run that goes on finds them. Where they are gone, they are computed anew: by the
base under a new adapter, which is as it was; else by the starting model, which is loaded for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.batches.stream import evaluation_batches, evaluation_order
from luthier.dataset.prepared import row_lengths
from luthier.engine.memory import MicroBatches
from luthier.evaluation.reference_file import (
    model_contents,
    reference_key,
    reference_path,
    with_reference_log_probs,
)
from luthier.evaluation.reference_log_probs import ReferencePass
from luthier.models.settings import LoraTuning
from luthier.recipes.job import Job, TunedModel, load_tuned
from luthier.recipes.manifest import describe_model
from luthier.recipes.run_config import RunConfig
from luthier.recipes.stages import stage_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from luthier.evaluation.reference_log_probs import Report


def with_reference(
    job: Job, checkpoint: Path | None, progress: Report, is_stopped: Callable[[], bool]
) -> Job:
    """Return a job whose rows hold what the reference gives them; as it is if none is needed.

    The reference is the model before its first step.

    Args:
        job: With its model at the start, or at the checkpoint.
        checkpoint: Where the model's weights are from.
        progress: Called as the work goes on.
        is_stopped: Asked between batches: whether somebody wants to stop.

    Raises:
        StopAskedError: Somebody wants to stop.
        LuthierError: The numbers can't be written, or the starting model can't be loaded.
    """
    config, prepared = job.config, job.data.prepared
    if not stage_of(config).needs_reference(config):
        return job
    model, computed = _what_is_computed(job)
    tuned: list[TunedModel] = []

    def reference() -> TunedModel:
        if checkpoint is None or is_under_adapter(config):
            return TunedModel(job.model, job.head, ())
        if not tuned:
            tuned.append(
                load_tuned(config, job.data.new_token_ids, None, job.device, job.precision)
            )
        return tuned[0]

    splits: dict[str, Any] = {}
    for name, rows in (("train", prepared.train), ("val", prepared.val)):
        if rows is None:
            continue
        key = reference_key(prepared.manifest["key"], name, model, computed)
        path = reference_path(prepared.folder, key)
        compute = partial(_log_probs, job, rows, reference, progress, is_stopped)
        splits[name] = with_reference_log_probs(rows, path, key, compute)
    return replace(job, data=replace(job.data, prepared=replace(prepared, **splits)))


def is_under_adapter(config: RunConfig) -> bool:
    """Return whether the reference is what stands under the adapter that is trained.

    Not where training goes on from an adapter, which is part of the starting model; nor where the
    adapter took its beginning out of the base.
    """
    tuning = config.tuning
    goes_on = config.model.trains_on_adapter
    return isinstance(tuning, LoraTuning) and not goes_on and not tuning.takes_from_base


def _what_is_computed(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what tells the reference from others, and how it computes."""
    config = job.config
    facts = describe_model(config.model)
    adapters = {name: model_contents(fact) for name, fact in facts.items() if name != "model"}
    computed: dict[str, Any] = {
        "precision": job.precision.name,
        "device": job.device.type,
        "quantization": config.quantization.model_dump(mode="json"),
        "packed": config.batches.is_packed,
        "adapters": adapters,
        "is_lora": config.tuning.finetuning_type == "lora",
    }
    if not is_under_adapter(config):
        computed["tuning"] = config.tuning.model_dump(mode="json")
    return facts["model"], computed


def _log_probs(
    job: Job,
    rows: Any,
    reference: Callable[[], TunedModel],
    progress: Report,
    is_stopped: Callable[[], bool],
) -> npt.NDArray[np.float32]:
    config, lengths, tuned = job.config, row_lengths(rows), reference()
    numbers = evaluation_order(lengths, config.batches)
    batches = evaluation_batches(rows, lengths, job.collate(), config.batches)
    compute = ReferencePass(
        head=tuned.head,
        precision=job.precision,
        device=job.device,
        without_adapter=is_under_adapter(config),
        progress=progress,
        is_stopped=is_stopped,
        micro_batches=MicroBatches(stage_of(config).layout.split),
    )
    return compute(tuned.model, zip(numbers, batches, strict=True), len(rows))
