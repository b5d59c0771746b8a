"""Choose what is trained: everything, some layers, or low-rank adapters (through peft)."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.errors import LuthierError, ModelError, SettingsError
from luthier.models.eva import input_directions
from luthier.models.fixed_terms import (
    Term,
    add_terms,
    begin_from_base,
    go_on_from_joined,
    join_terms,
    read_terms,
    trained_part,
)
from luthier.models.freezing import freeze_layers
from luthier.models.module_names import check_modules, is_named
from luthier.models.reward_model import SCORE, TASK_TYPES, kind_of
from luthier.models.safety import check_adapter_folder
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning
from luthier.models.vocabulary import check_token_rows, refuse_frozen_rows, rows_for_lora

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
    *,
    merged: Sequence[str] = (),
    is_checkpoint: bool = False,
    new_token_ids: Sequence[int] | None = None,
    first_batches: Sequence[Mapping[str, torch.Tensor]] = (),
) -> Any:
    """Make a model's parameters trainable as the settings say.

    Args:
        model: The base model; changed in place.
        tuning: What to train.
        adapter: A LoRA adapter's folder to train on from.
        merged: Adapters that are merged into the base first.
        is_checkpoint: Whether the adapter is one of a run that goes on: of what it holds then, only
            the part that was trained is trained on.
        new_token_ids: Tokens whose rows of embeddings and head are trained, too; the model has them
            already. None: those that the adapter trains.
        first_batches: What new adapters with `lora_init: eva` begin from. Empty: they begin as by
            default, which is as good to count them.

    Returns:
        The model, wrapped by peft for LoRA.

    Raises:
        SettingsError: A named module or layer does not exist in this model; or there are new
            tokens, and their rows would not be trained.
        ModelError: The adapter can't be loaded, or its tokens are others.
    """
    if not isinstance(tuning, LoraTuning):
        _leave_the_file(model)
    if isinstance(tuning, FullTuning):
        model.requires_grad_(True)
        return model
    if isinstance(tuning, FreezeTuning):
        freeze_layers(model, tuning)
        refuse_frozen_rows(model, new_token_ids or ())
        return model
    terms: dict[str, Term] = {}
    for name in merged:
        with _adapter_errors(name):
            terms = join_terms(terms, read_terms(model, _checked_folder(name)))
    if adapter:
        tuned = _continue_lora(model, adapter, is_checkpoint, new_token_ids)
    else:
        tuned = _add_lora(model, tuning, new_token_ids or (), first_batches)
    if terms and _has_dora(tuned):
        raise ModelError(
            "the adapter that is trained is a DoRA, whose magnitudes are those of a whole matrix",
            where=adapter,
            mend="Merge the adapters below it with peft, and name the merged model as base.",
        )
    add_terms(tuned, terms)
    return tuned


def count_parameters(model: torch.nn.Module) -> ParameterCount:
    """Count parameters; a 4-bit weight counts as the parameters that it stands for."""
    sizes = [(_true_size(p), p.requires_grad) for p in model.parameters()]
    return ParameterCount(sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes))


def _true_size(parameter: torch.nn.Parameter) -> int:
    # bitsandbytes packs two 4-bit values into one byte.
    packed = type(parameter).__name__ == "Params4bit"
    return parameter.numel() * 2 if packed else parameter.numel()


def _leave_the_file(model: torch.nn.Module) -> None:
    """Give each weight memory of its own, in the place of the file that it is mapped from.

    A product's last bit depends on where its factors lie, and a checkpoint's file may be laid out
    otherwise than the base's: a run that goes on would not be the same. Under an adapter it is the
    base's file each time.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def _add_lora(
    model: PreTrainedModel,
    tuning: LoraTuning,
    new_token_ids: Sequence[int],
    first_batches: Sequence[Mapping[str, torch.Tensor]],
) -> Any:
    from peft import LoraConfig, get_peft_model

    target: str | list[str] = "all-linear"
    paths = _linear_paths(model)
    if isinstance(tuning.lora_target, list):
        target = tuning.lora_target
        check_modules("lora_target", target, paths, "linear layer below its head")
    elif tuning.lora_target != "all":
        target = sorted(path for path in paths if re.fullmatch(tuning.lora_target, path))
        if not target:
            raise SettingsError(
                f"lora_target matches no linear layer: {tuning.lora_target}",
                mend=f"It must match a whole path, such as {min(paths)}.",
            )
    extra = list(tuning.additional_target or [])
    check_modules("additional_target", extra, _module_paths(model), "module")
    kind = kind_of(model)
    # A reward model's head begins at random: it is trained whole.
    extra += [SCORE] if kind == "reward" and SCORE not in extra else []
    rows, whole = rows_for_lora(model, new_token_ids, extra)
    config = LoraConfig(
        task_type=TASK_TYPES[kind],
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha or 2 * tuning.lora_rank,
        lora_dropout=tuning.lora_dropout,
        target_modules=target,
        modules_to_save=[*extra, *whole] or None,
        trainable_token_indices=rows or None,
        use_rslora=tuning.use_rslora,
        use_dora=tuning.use_dora,
        init_lora_weights="gaussian" if tuning.lora_init == "gaussian" else True,
    )
    directions: dict[str, torch.Tensor] = {}
    if first_batches:
        chosen = sorted(paths) if target == "all-linear" else _named(paths, target)
        directions = input_directions(model, chosen, tuning.lora_rank, first_batches)
    tuned = get_peft_model(model, config)
    _train_in_float32(tuned)
    for path, rows_RK in directions.items():
        layer: Any = tuned.get_base_model().get_submodule(path)
        layer.lora_A[tuned.active_adapter].weight.data.copy_(rows_RK)
    if tuning.takes_from_base:
        begin_from_base(tuned, tuning.lora_init)
    return tuned


def _named(paths: set[str], names: str | list[str]) -> list[str]:
    return sorted(path for path in paths if any(is_named(path, name) for name in names))


def _continue_lora(
    model: PreTrainedModel,
    adapter: str,
    is_checkpoint: bool,
    new_token_ids: Sequence[int] | None,
) -> Any:
    from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

    with _adapter_errors(adapter):
        folder = _checked_folder(adapter)
        _check_purpose(model, folder)
        if new_token_ids is not None:
            check_token_rows(folder, new_token_ids)
        trained = trained_part(folder) if is_checkpoint else None
        if trained is not None:
            tuned = go_on_from_joined(model, folder, trained)
            _train_in_float32(tuned)
            return tuned
        tuned = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        if _train_in_float32(tuned):
            # They were rounded to the base's type as they were loaded: read them again, exactly.
            set_peft_model_state_dict(tuned, load_peft_weights(str(folder)))
        return tuned


def _check_purpose(model: PreTrainedModel, folder: Path) -> None:
    """Refuse an adapter that was trained for another head than the model has."""
    from peft import LoraConfig

    found = LoraConfig.from_pretrained(str(folder)).task_type
    kind = kind_of(model)
    if found is None or (found == TASK_TYPES["reward"]) == (kind == "reward"):
        return
    if kind == "reward":
        raise ModelError(
            "this adapter is a language model's, and brings no head that gives rewards",
            where=str(folder),
            mend="Set create_new_adapter: true: it is merged into the base, and a new adapter and "
            "a new head are trained.",
        )
    raise ModelError(
        "this adapter is a reward model's: it gives answers a number and writes none",
        where=str(folder),
        mend="Name an adapter that was trained with another stage than rm.",
    )


def _has_dora(tuned: Any) -> bool:
    return bool(tuned.peft_config[tuned.active_adapter].use_dora)


def _checked_folder(adapter: str) -> Path:
    folder = Path(adapter if Path(adapter).is_dir() else _fetch(adapter))
    check_adapter_folder(folder)
    return folder


@contextmanager
def _adapter_errors(adapter: str) -> Generator[None]:
    try:
        yield
    except LuthierError:
        raise
    except Exception as error:
        # Whatever peft raises here has its cause in the folder.
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the adapter does not load onto this model: {first_line}",
            where=adapter,
            mend="Check that it is a LoRA folder made from this base model.",
        ) from error


def _fetch(name: str) -> str:
    """Return the folder of an adapter of the hub: its config and its safetensors, no pickle."""
    from huggingface_hub import snapshot_download

    return snapshot_download(name, allow_patterns=["adapter_config.json", "*.safetensors"])


def _train_in_float32(model: torch.nn.Module) -> bool:
    """Widen what is trained, and say whether anything was narrow.

    peft sees to the adapters where the frozen base is in bfloat16, but not to the modules that are
    trained whole (`additional_target`): small steps would be lost in rounding.
    """
    import torch

    narrow = [p for p in model.parameters() if p.requires_grad and p.dtype != torch.float32]
    for parameter in narrow:
        parameter.data = parameter.data.float()
    return bool(narrow)


def linear_names(model: torch.nn.Module) -> set[str]:
    """Return the last names of all linear layers, the output head left out."""
    return {path.split(".")[-1] for path in _linear_paths(model)}


def _linear_paths(model: torch.nn.Module) -> set[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    heads = [getattr(model, "get_output_embeddings", lambda: None)(), getattr(model, SCORE, None)]
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and all(module is not h for h in heads)
    }


def _module_paths(model: torch.nn.Module) -> set[str]:
    return {path for path, _ in model.named_modules() if path}
