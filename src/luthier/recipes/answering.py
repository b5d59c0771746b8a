"""A run folder, checkpoint, model folder or hub name in; a model that answers out.

The tokenizer, the chat template, the stop tokens and the default system prompt are those of the
training, so that a prompt is rendered to the ids that the model was taught on. Refuses what can't
answer (no weights, no base model, no chat template), each with the mend.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from luthier.checkpoints.listing import FOLDER as CHECKPOINTS
from luthier.checkpoints.listing import MODEL, list_checkpoints
from luthier.contracts.conversation import Message
from luthier.core.errors import ModelError
from luthier.core.units import format_count
from luthier.dataset.rendering import Renderer, stop_token_ids
from luthier.dataset.templates import resolve_template
from luthier.dataset.tokenizer import TOKENIZER_FILES, load_tokenizer
from luthier.engine.precision import choose_device, has_native_bf16
from luthier.models.adapters import apply_tuning, count_parameters
from luthier.models.load import load_model, local_folder
from luthier.models.reward_model import TASK_TYPES
from luthier.models.settings import LoraTuning, ModelSettings, QuantizationSettings
from luthier.models.vocabulary import add_token_rows
from luthier.recipes.config_file import read_config_file
from luthier.recipes.config_layout import sections
from luthier.recipes.run_folder import RUN_YAML

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("*.safetensors", "*.bin")

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class AnsweringModel:
    """All that it takes to answer a conversation.

    Attributes:
        model: Ready for generation, on its device.
        tokenizer: With the chat template that was trained.
        stop_token_ids: Any of these ends an answer.
        renderer: Turns messages into the ids that training used as prompts.
        description: What it is, in one line.
    """

    model: Any
    tokenizer: PreTrainedTokenizerFast
    stop_token_ids: tuple[int, ...]
    renderer: Renderer
    description: str

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that ask for the next answer.

        Raises:
            DataError: The chat template refuses the messages.
        """
        return self.renderer.prompt_ids(messages)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the parts of a model lie.

    Attributes:
        weights: Folder or hub name of a whole model: the base of an adapter.
        revision: Branch, tag or commit of a hub model.
        adapter: Folder of the adapter.
    """

    weights: str
    revision: str = "main"
    adapter: Path | None = None


def load_answering_model(
    path: str, device: torch.device | None = None, dtype: Dtype = "auto"
) -> AnsweringModel:
    """Load a model together with all that decides how it is asked.

    Args:
        path: A run folder, a checkpoint of a run, a model folder, an adapter folder, or a hub name.
        device: Where to; None takes the GPU if there is one.
        dtype: Type of the weights; `auto` is bfloat16 where the device has it, else float32, and
            float32 for an adapter on a CPU.

    Returns:
        The model. A LoRA adapter is merged into float32 weights, where that is exact to rounding;
        beside weights of a shorter type it stays apart, as it was trained.

    Raises:
        ModelError: There is no such model, it is unfinished, its base model is gone, it has no
            tokenizer or no chat template.
    """
    device = choose_device() if device is None else device
    named = local_folder(path)
    folder = None if named is None else _weights_folder(named)
    place = _Place(path) if folder is None else _place(folder)
    tokenizer = load_tokenizer(_tokenizer_source(folder, place), place.revision)
    _set_template(tokenizer, path)
    weight_type = _weight_type(dtype, device, place.adapter is not None)
    settings = ModelSettings(model_name_or_path=place.weights, model_revision=place.revision)
    model: Any = load_model(
        settings, QuantizationSettings(), device=device, dtype=weight_type
    ).model
    size = f"{format_count(count_parameters(model).total)} parameters"
    if place.adapter is not None:
        add_token_rows(model, range(model.get_input_embeddings().weight.shape[0], len(tokenizer)))
        model = apply_tuning(model, LoraTuning(), str(place.adapter))
        _match_whole_modules(model, weight_type)
        if weight_type == torch.float32:
            model = model.merge_and_unload()
    model.requires_grad_(False)
    model.eval()
    what = f"LoRA on {place.weights}" if place.adapter else "whole model"
    type_name = str(weight_type).removeprefix("torch.")
    return AnsweringModel(
        model=model,
        tokenizer=tokenizer,
        stop_token_ids=_stop_ids(tokenizer, model, place.adapter),
        renderer=Renderer(tokenizer, default_system=_default_system(folder)),
        description=f"{what}, {size}, {type_name}, {device.type}",
    )


def _match_whole_modules(model: Any, weight_type: torch.dtype) -> None:
    """Bring modules that were trained whole to the base's type.

    Training joins types by autocast, which generation does without. The low-rank parts stay in
    float32: peft casts around them.
    """
    from peft.utils import ModulesToSaveWrapper

    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.to(weight_type)


def _weights_folder(named: Path) -> Path:
    """Return the folder that holds the weights: the named one, or a checkpoint's `model`."""
    if (named / MODEL).is_dir() and (named / "state.json").is_file():
        return named / MODEL
    run = named.parent if named.name == CHECKPOINTS else named
    is_run = (run / RUN_YAML).is_file() or (run / CHECKPOINTS).is_dir()
    if is_run and (run != named or not any(any(run.glob(kind)) for kind in _WEIGHTS)):
        found = list_checkpoints(run)
        raise ModelError(
            "this run is not finished: its folder holds no weights"
            if run == named
            else "this folder holds checkpoints, and is none itself",
            where=str(named),
            mend=f"Name its newest checkpoint: {found[-1]}"
            if found
            else "It has no checkpoint either: start it again with luthier train.",
        )
    return named


def _place(folder: Path) -> _Place:
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return _Place(str(folder))
    mend = "Set base_model_name_or_path in it to the base model's folder or hub name."
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        base, revision = config["base_model_name_or_path"], config.get("revision")
        task_type = config.get("task_type")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        base = revision = task_type = None
    if task_type == TASK_TYPES["reward"]:
        raise ModelError(
            "this is a reward model's adapter: it gives answers a number and writes none",
            where=str(folder),
            mend="Name an adapter that was trained with another stage than rm.",
        )
    if not base:
        problem = "the adapter does not say which base model it is for"
        raise ModelError(problem, where=str(file), mend=mend)
    try:
        local_folder(base)
    except ModelError as error:
        problem = f"the adapter's base model {base} is not there"
        raise ModelError(problem, where=str(file), mend=mend) from error
    return _Place(base, revision or "main", folder)


def _tokenizer_source(folder: Path | None, place: _Place) -> str:
    """Return where the tokenizer is: with the weights, or with the base of a bare adapter."""
    if folder is None or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return place.weights
    return str(folder)


def _set_template(tokenizer: PreTrainedTokenizerFast, path: str) -> None:
    if not tokenizer.chat_template:
        raise ModelError(
            "the model has no chat template: it is a base model, which continues texts",
            where=path,
            mend="Fine-tune it with template: chatml, which is then saved with it, or put its "
            "chat_template.jinja into the folder.",
        )
    resolve_template(tokenizer, "auto")


def _weight_type(dtype: Dtype, device: torch.device, is_adapter: bool) -> torch.dtype:
    if dtype == "auto":
        # A CPU answers twice as fast with merged float32 weights as with an adapter kept apart
        # (135M parameters, 2 cores), and float32 is where merging is exact.
        if is_adapter and device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    return {
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float32": torch.float32,
    }[dtype]


def _stop_ids(
    tokenizer: PreTrainedTokenizerFast, model: Any, adapter: Path | None
) -> tuple[int, ...]:
    """Return what ends an answer: the template's end of turn, eos, and generation_config.json."""
    config = model.generation_config
    if adapter is not None and (adapter / "generation_config.json").is_file():
        config = type(config).from_pretrained(adapter)
    named = config.eos_token_id
    ids = [named] if isinstance(named, int) else list(named or [])
    return tuple(dict.fromkeys([*stop_token_ids(tokenizer), *ids]))


def _default_system(folder: Path | None) -> str | None:
    """Return the system prompt that training put before conversations without one."""
    if folder is None:
        return None
    run = folder
    if folder.name == MODEL and folder.parent.parent.name == CHECKPOINTS:
        run = folder.parent.parent.parent
    if not (run / RUN_YAML).is_file():
        return None
    entries = read_config_file(run / RUN_YAML, frozenset(sections()))
    return next((entry.value for entry in entries if entry.name == "default_system"), None)
