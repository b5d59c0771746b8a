"""Packed training, as far as a model allows it: asked before it is loaded, tried once it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from luthier.contracts.notice import Notice
from luthier.core.errors import ModelError
from luthier.models.load import read_config
from luthier.models.packing_support import PackingSupport
from luthier.recipes.run_config import RunConfig
from luthier.recipes.stages import stage_of

if TYPE_CHECKING:
    import torch


def settle_packing(config: RunConfig) -> tuple[RunConfig, Notice | None]:
    """Return the settings as they will be carried out: auto is chosen, what can't be had replaced.

    Whatever builds or counts batches takes these settings, and a checkpoint's fingerprint is made
    of them. run.yaml keeps what was asked for.

    Returns:
        The settings, and a notice where the model's rows can't be packed, so that they are padded.

    Raises:
        ModelError: The model's config can't be read.
    """
    asked = config.batches.packing
    if not asked:
        return config, None
    if asked == "auto" and _asks_for_padding(config):
        return _with_packing(config, False), None
    layout = stage_of(config).layout
    support = layout.support(read_config(config.model))
    if config.model.flash_attn == "fa2" and not layout.takes_flash_attention:
        support = PackingSupport("none", "FlashAttention 2 knows no prompts that answers share")
    if support.kind == "none":
        return _with_packing(config, False), support.notice(str(asked).lower())
    if asked == "auto":
        return _with_packing(config, stage_of(config).auto_packing), None
    return config, None


def _asks_for_padding(config: RunConfig) -> bool:
    """Whether a setting is given that is meant for padded rows."""
    by_transformers = config.run.trainer == "transformers"
    return by_transformers or config.batches.group_by_length or config.model.flash_attn == "eager"


def _with_packing(config: RunConfig, packing: Literal[False, True, "padding_free"]) -> RunConfig:
    batches = config.batches.model_copy(update={"packing": packing})
    return config.model_copy(update={"batches": batches})


def refuse_unpackable(model: torch.nn.Module, config: RunConfig) -> None:
    """See on the loaded model that a packed row gives what its documents give alone.

    Raises:
        ModelError: It does not.
    """
    reason = stage_of(config).layout.check(model)
    if reason is not None:
        raise ModelError(
            reason,
            where=config.model.model_name_or_path,
            mend="Set packing: false: rows are then padded, which every model can.",
        )
