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
class ModelPlace:
    """Where the parts of a model lie.

    Attributes:
        weights: Folder or hub name of a whole model: the base of an adapter.
        revision: Branch, tag or commit of a hub model.
        adapter: Folder of the adapter.
        folder: The folder that was named, or the one in it that holds weights; None for a hub
            name.
    """

    weights: str
    revision: str = "main"
    adapter: Path | None = None
    folder: Path | None = None

    @property
    def run(self) -> Path | None:
        """The folder of the run that made the model, if one did."""
        if self.folder is None:
            return None
        run = self.folder.parents[2] if self.checkpoint is not None else self.folder
        return run if (run / RUN_YAML).is_file() else None

    @property
    def checkpoint(self) -> str | None:
        """The name of the checkpoint of a run that the model is, if it is one."""
        folder = self.folder
        if folder is None or folder.name != MODEL or folder.parent.parent.name != CHECKPOINTS:
            return None
        return folder.parent.name


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
    place = find_model(path)
    tokenizer = load_its_tokenizer(place)
    _set_template(tokenizer, path)
    weight_type = choose_weight_type(dtype, device, place.adapter is not None)
    model = load_its_model(place, len(tokenizer), device, weight_type)
    size = f"{format_count(count_parameters(model).total)} parameters"
    if place.adapter is not None and weight_type == torch.float32:
        model = model.merge_and_unload()
    model.requires_grad_(False)
    model.eval()
    what = f"LoRA on {place.weights}" if place.adapter else "whole model"
    type_name = str(weight_type).removeprefix("torch.")
    return AnsweringModel(
        model=model,
        tokenizer=tokenizer,
        stop_token_ids=stop_ids(tokenizer, model, place.adapter),
        renderer=Renderer(tokenizer, default_system=default_system(place.run)),
        description=f"{what}, {size}, {type_name}, {device.type}",
    )


def find_model(path: str) -> ModelPlace:
    """Find the parts of a model; nothing is loaded.

    Args:
        path: As for `load_answering_model`.

    Raises:
        ModelError: There is no such model, it is unfinished, its base model is gone, or it is the
            adapter of a reward model.
    """
    named = local_folder(path)
    return ModelPlace(path) if named is None else _place(_weights_folder(named))


def load_its_tokenizer(place: ModelPlace) -> PreTrainedTokenizerFast:
    """Load the tokenizer that lies with a model, or with the base of a bare adapter.

    Raises:
        ModelError: There is none.
    """
    return load_tokenizer(_tokenizer_source(place), place.revision)


def load_its_model(
    place: ModelPlace,
    num_tokens: int,
    device: torch.device,
    weight_type: torch.dtype,
    *,
    packed: bool = False,
) -> Any:
    """Load the weights of a model, its adapter apart from them.

    Args:
        place: Where they lie.
        num_tokens: Size of the vocabulary, which an adapter may have grown.
        device: Where to.
        weight_type: Their type.
        packed: Whether it will be given packed rows; `packing_support` must have agreed.

    Raises:
        ModelError: They can't be loaded, or are those of a reward model.
    """
    settings = ModelSettings(model_name_or_path=place.weights, model_revision=place.revision)
    model: Any = load_model(
        settings, QuantizationSettings(), device=device, dtype=weight_type, packed=packed
    ).model
    if place.adapter is not None:
        add_token_rows(model, range(model.get_input_embeddings().weight.shape[0], num_tokens))
        model = apply_tuning(model, LoraTuning(), str(place.adapter))
        _match_whole_modules(model, weight_type)
    return model


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


def _place(folder: Path) -> ModelPlace:
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return ModelPlace(str(folder), folder=folder)
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
    return ModelPlace(base, revision or "main", folder, folder)


def _tokenizer_source(place: ModelPlace) -> str:
    """Return where the tokenizer is: with the weights, or with the base of a bare adapter."""
    folder = place.folder
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


def choose_weight_type(dtype: Dtype, device: torch.device, is_adapter: bool) -> torch.dtype:
    """Return the type of the weights for a device; see `load_answering_model` for `auto`."""
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


def stop_ids(
    tokenizer: PreTrainedTokenizerFast, model: Any, adapter: Path | None
) -> tuple[int, ...]:
    """Return what ends an answer: the template's end of turn, eos, and generation_config.json."""
    config = model.generation_config
    if adapter is not None and (adapter / "generation_config.json").is_file():
        config = type(config).from_pretrained(adapter)
    named = config.eos_token_id
    ids = [named] if isinstance(named, int) else list(named or [])
    return tuple(dict.fromkeys([*stop_token_ids(tokenizer), *ids]))


def default_system(run: Path | None) -> str | None:
    """Return the system prompt that a run put before conversations without one."""
    if run is None:
        return None
    entries = read_config_file(run / RUN_YAML, frozenset(sections()))
    return next((entry.value for entry in entries if entry.name == "default_system"), None)
