"""Choose what is trained: everything, some layers, or low-rank adapters (through peft)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.core.errors import ModelError, SettingsError, did_you_mean
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How much of a model is trained."""

    trained: int
    total: int


def apply_tuning(
    model: PreTrainedModel,
    tuning: LoraTuning | FullTuning | FreezeTuning,
    adapter: str | None = None,
) -> Any:
    """Make a model's parameters trainable as the settings say.

    Args:
        model: The base model; changed in place.
        tuning: What to train.
        adapter: A LoRA adapter's folder to train on from.

    Returns:
        The model, wrapped by peft for LoRA.

    Raises:
        SettingsError: A named module or layer does not exist in this model.
        ModelError: The adapter can't be loaded.
    """
    if isinstance(tuning, FullTuning):
        model.requires_grad_(True)
        return model
    if isinstance(tuning, FreezeTuning):
        return _freeze(model, tuning)
    return _continue_lora(model, adapter) if adapter else _add_lora(model, tuning)


def count_parameters(model: torch.nn.Module) -> ParameterCount:
    """Count parameters; a 4-bit weight counts as the parameters that it stands for."""
    sizes = [(_true_size(p), p.requires_grad) for p in model.parameters()]
    return ParameterCount(sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes))


def _true_size(parameter: torch.nn.Parameter) -> int:
    # bitsandbytes packs two 4-bit values into one byte.
    packed = type(parameter).__name__ == "Params4bit"
    return parameter.numel() * 2 if packed else parameter.numel()


def _add_lora(model: PreTrainedModel, tuning: LoraTuning) -> Any:
    from peft import LoraConfig, get_peft_model

    target: str | list[str] = "all-linear"
    if tuning.lora_target != "all":
        target = list(tuning.lora_target)
        _check_modules("lora_target", target, linear_names(model))
    extra = list(tuning.additional_target or [])
    _check_modules("additional_target", extra, {n.split(".")[-1] for n, _ in model.named_modules()})
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha or 2 * tuning.lora_rank,
        lora_dropout=tuning.lora_dropout,
        target_modules=target,
        modules_to_save=extra or None,
        use_rslora=tuning.use_rslora,
        use_dora=tuning.use_dora,
    )
    # The adapter is trained in float32 even where the frozen base is in bfloat16.
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def _continue_lora(model: PreTrainedModel, adapter: str) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the adapter does not load onto this model: {str(error).splitlines()[0]}",
            where=adapter,
            mend="Check that it is a LoRA folder made from this base model.",
        ) from error


def linear_names(model: torch.nn.Module) -> set[str]:
    """Return the last names of all linear layers, the output head left out."""
    import torch

    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        name.split(".")[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _check_modules(setting: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name.split(".")[-1] not in known:
            raise SettingsError(
                f"{setting} names {name}, and this model has no such module",
                mend=did_you_mean(name, known) + f" This model has: {', '.join(sorted(known))}.",
            )


def _freeze(model: PreTrainedModel, tuning: FreezeTuning) -> PreTrainedModel:
    layers = {int(found.group(1)) for n, _ in model.named_parameters() if (found := _layer_of(n))}
    count = tuning.freeze_trainable_layers
    if abs(count) > len(layers):
        raise SettingsError(
            f"freeze_trainable_layers is {count}, and the model has {len(layers)} layers",
            mend=f"Give a number from -{len(layers)} to {len(layers)}.",
        )
    chosen = set(sorted(layers)[-count:] if count > 0 else sorted(layers)[:-count])
    extra = list(tuning.freeze_extra_modules or [])
    outside = {
        part for n, _ in model.named_parameters() if not _layer_of(n) for part in n.split(".")[:-1]
    }
    _check_modules("freeze_extra_modules", extra, outside - {"model"} | _tied_head(model))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer = _layer_of(name)
        wanted = int(layer.group(1)) in chosen if layer else bool(set(name.split(".")) & set(extra))
        parameter.requires_grad_(wanted)
    return model


def _tied_head(model: PreTrainedModel) -> set[str]:
    # A head that is tied to the embedding is no parameter of its own, but it has a name.
    return {"lm_head"} if model.get_output_embeddings() is not None else set()


def _layer_of(name: str) -> re.Match[str] | None:
    return re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", name)
