"""Look at a run before it starts: what would be taught, what was left out, what it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from luthier.contracts.notice import Notice
from luthier.core.errors import ModelError
from luthier.core.seeds import derive_seed
from luthier.dataset.prepared import row_lengths
from luthier.engine.precision import Precision, choose_device, choose_precision
from luthier.evaluation.token_losses import token_losses
from luthier.models.adapters import apply_tuning, count_parameters
from luthier.models.load import check_model_path, load_model
from luthier.models.reward_model import auto_class, check_kind
from luthier.models.vocabulary import add_token_rows
from luthier.recipes.data import PreparedRun, prepare_data
from luthier.recipes.estimate import Estimate, estimate_run
from luthier.recipes.machine import available_memory, measure_matrix_rates
from luthier.recipes.memory_estimate import Computing, ModelShape, model_shape
from luthier.recipes.packed import settle_packing
from luthier.recipes.run_config import RunConfig
from luthier.recipes.screen import Screen
from luthier.recipes.shown_rows import ShownRow, answers_of, show_row
from luthier.recipes.stages import stage_of


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that `luthier inspect` shows."""

    data: PreparedRun
    rows: tuple[ShownRow, ...]
    shape: ModelShape
    estimate: Estimate
    precision: str
    notices: tuple[Notice, ...]


def inspect_run(
    config: RunConfig, screen: Screen, num_rows: int, *, with_losses: bool = False
) -> Inspection:
    """Prepare the data of a run and look at it; no weight is read unless losses are wanted.

    Args:
        config: The run's settings.
        screen: Told what takes time.
        num_rows: Rows to show, drawn by the run's seed.
        with_losses: Load the model and compute the loss of each token that is shown.

    Raises:
        LuthierError: As training itself would.
    """
    check_model_path(config.model)
    stage_of(config).check(config)
    config, packing_notice = settle_packing(config)
    data = prepare_data(config, screen)
    train = data.prepared.train
    random = np.random.default_rng(derive_seed(config.run.seed, "inspect"))
    chosen = random.permutation(len(train))[:num_rows].tolist()
    drawn = [answer for index in sorted(chosen) for answer in answers_of(train[index])]
    shape, device = shape_of(config, data.new_token_ids), choose_device()
    precision, precision_notice = choose_precision(config.training, device)
    losses: Sequence[list[float | None] | None] = [None] * len(drawn)
    if with_losses:
        screen.say(f"Loading {config.model.model_name_or_path}")
        shown_rows = [row for _, row in drawn]
        losses = _losses(config, data.new_token_ids, shown_rows, precision, device)
    shown = zip(drawn, losses, strict=True)
    rows = tuple(
        show_row(row, data.tokenizer, values, judgement) for (judgement, row), values in shown
    )
    rates = measure_matrix_rates()
    rate = rates.get(precision.name, rates["fp32"]) * 1e9
    computing = Computing(
        value_bytes=precision.dtype.itemsize,
        device_type=device.type,
        available_bytes=available_memory(device),
        flops_per_second=rate,
        full_logits=config.run.trainer != "luthier",
    )
    stage, left_out = stage_of(config), None
    estimate = estimate_run(*stage.as_computed(config, row_lengths(train)), shape, computing)
    if stage.not_estimated is not None:
        reason = f"{stage.not_estimated} is left out of the time"
        left_out = Notice("estimate", "", "", reason)
    notices = (*data.notices, precision_notice, packing_notice, estimate.notice, left_out)
    found = tuple(notice for notice in notices if notice is not None)
    return Inspection(data, rows, shape, estimate, precision.name, found)


def _losses(
    config: RunConfig,
    new_token_ids: Sequence[int],
    rows: Sequence[dict[str, Any]],
    precision: Precision,
    device: torch.device,
) -> list[list[float | None]]:
    """Load the model and compute the loss of every taught token of some rows."""
    dtype = precision.dtype if config.tuning.finetuning_type == "lora" else torch.float32
    model = load_model(config.model, config.quantization, device=device, dtype=dtype).model
    add_token_rows(model, new_token_ids)
    return [token_losses(model, row, precision=precision, device=device) for row in rows]


def shape_of(config: RunConfig, new_token_ids: Sequence[int] = ()) -> ModelShape:
    """Build the model without memory (on the meta device) and count what would be trained.

    Args:
        config: The run's settings.
        new_token_ids: Of the tokens that it adds.

    Raises:
        ModelError: It is no causal language model, or of a kind that transformers doesn't know.
        SettingsError: The settings name modules that it does not have.
    """
    from transformers import AutoConfig

    kind = stage_of(config).model_kind
    name, trust = config.model.model_name_or_path, config.model.trust_remote_code
    try:
        found = AutoConfig.from_pretrained(
            name, trust_remote_code=trust, revision=config.model.model_revision
        )
        check_kind(found, kind, name)
        if kind == "reward":
            found.num_labels = 1
        with torch.device("meta"):
            model = auto_class(kind).from_config(found, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"transformers can't build this model: {str(error).strip().splitlines()[0]}",
            where=name,
            mend="Check that it is a causal language model and that the download is complete.",
        ) from error
    with torch.device("meta"):
        add_token_rows(model, new_token_ids)
        tuned = apply_tuning(model, config.tuning, new_token_ids=new_token_ids)
    return model_shape(model, count_parameters(tuned))


def length_histogram(lengths: Sequence[int], num_bins: int = 10) -> list[tuple[int, int, int]]:
    """Count rows by length.

    Returns:
        `(from, to, rows)` for each bin, both ends included.
    """
    width = max(1, -(-max(lengths) // num_bins))
    counts = [0] * num_bins
    for length in lengths:
        counts[min((length - 1) // width, num_bins - 1)] += 1
    return [(i * width + 1, (i + 1) * width, count) for i, count in enumerate(counts)]
