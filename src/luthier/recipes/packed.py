"""Packed training, as far as a model allows it: asked before it is loaded, tried once it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from luthier.contracts.notice import Notice
from luthier.core.errors import ModelError
from luthier.models.load import read_config
from luthier.models.packing_support import check_packed, packing_support
from luthier.models.segments import packed_inputs
from luthier.objectives.sft import model_inputs
from luthier.recipes.run_config import RunConfig

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


def with_possible_packing(config: RunConfig) -> tuple[RunConfig, Notice | None]:
    """Return the settings, with padded rows where the model's rows can't be packed.

    Raises:
        ModelError: The model's config can't be read.
    """
    if not config.batches.packing:
        return config, None
    notice = packing_support(read_config(config.model)).notice()
    if notice is None:
        return config, None
    padded = config.batches.model_copy(update={"packing": False})
    return config.model_copy(update={"batches": padded}), notice


def refuse_unpackable(model: torch.nn.Module, config: RunConfig) -> None:
    """See on the loaded model that a packed row gives what its documents give alone.

    Raises:
        ModelError: It does not.
    """
    reason = check_packed(model)
    if reason is not None:
        raise ModelError(
            reason,
            where=config.model.model_name_or_path,
            mend="Set packing: false: rows are then padded, which every model can.",
        )


def batch_inputs(batch: Batch) -> dict[str, Any]:
    """Return the model's keyword arguments for a batch, packed or padded."""
    return packed_inputs(batch) if "cu_seqlens" in batch else model_inputs(batch)
