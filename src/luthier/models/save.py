"""Save a trained model so that transformers, peft and vLLM open the folder as it is.

A model is first taken, then written. What was taken as a copy can be written by another thread
while training changes the weights.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.files import write_text
from luthier.models.fixed_terms import TRAINED_PART, joined_adapter
from luthier.models.reward_model import TASK_TYPES, kind_of, settle_padding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from transformers import PreTrainedTokenizerBase

    State = dict[str, torch.Tensor]

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h")
_SAMPLING_CUTOFFS = ("typical_p", "epsilon_cutoff", "eta_cutoff")


@dataclass(frozen=True, slots=True)
class TakenModel:
    """A model as it is to be written.

    Attributes:
        num_bytes: Of its weights; the files beside them are small.
    """

    num_bytes: int
    _write_weights: Callable[[Path], None]
    _tokenizer: PreTrainedTokenizerBase

    def write(self, folder: Path) -> None:
        """Write weights (or adapter), tokenizer, chat template and stop tokens.

        Args:
            folder: Where to; created if missing.

        Raises:
            OSError: The disk is full or the folder can't be written.
            SafetensorError: The same, found by safetensors.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._write_weights(folder)
        self._tokenizer.save_pretrained(folder)


def take_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    stop_token_ids: Sequence[int],
    *,
    as_copy: bool = False,
) -> TakenModel:
    """Take a model as it stands, to be written.

    Args:
        model: A transformers model, or a peft model around one.
        tokenizer: With the chat template that was trained.
        stop_token_ids: Ids that end an answer, for generation_config.json. A reward model, which
            generates nothing, has no such file.
        as_copy: Whether what is trained is copied to the CPU's memory. A frozen weight never is:
            training does not change it.
    """
    is_adapter = hasattr(model, "peft_config")
    base = model.get_base_model() if is_adapter else model
    if kind_of(base) == "reward":
        settle_padding(base, tokenizer)
    else:
        _settle_generation(base.generation_config, tokenizer, stop_token_ids)
    take = _take_adapter if is_adapter else _take_whole
    num_bytes, write_weights = take(model, as_copy)
    return TakenModel(num_bytes, write_weights, tokenizer)


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    stop_token_ids: Sequence[int],
) -> None:
    """Take a model and write it. Arguments and errors: `take_model` and `TakenModel.write`."""
    take_model(model, tokenizer, stop_token_ids).write(folder)


def _settle_generation(
    generation: Any, tokenizer: PreTrainedTokenizerBase, stop_token_ids: Sequence[int]
) -> None:
    generation.eos_token_id = list(stop_token_ids)
    generation.pad_token_id = tokenizer.pad_token_id
    # Sampling settings left over from the base model would make saving fail if they contradict.
    if not generation.do_sample:
        for name in (*_SAMPLING, *_SAMPLING_CUTOFFS):
            setattr(generation, name, None)


def _take_whole(model: Any, as_copy: bool) -> tuple[int, Callable[[Path], None]]:
    state: State = model.state_dict()
    if as_copy:
        state = _copied(state, frozen=(p for p in model.parameters() if not p.requires_grad))

    def write(folder: Path) -> None:
        # transformers takes tensors out of the dict as it writes them. What else it reads of the
        # model is its configuration, which training leaves alone.
        model.save_pretrained(folder, state_dict=dict(state))

    return _num_bytes(state), write


def _take_adapter(model: Any, as_copy: bool) -> tuple[int, Callable[[Path], None]]:
    # peft's own `save_pretrained` changes the live configuration while it writes, and adds a model
    # card that is all "More Information Needed".
    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    name = model.active_adapter
    base = model.get_base_model()
    config = _config_to_write(model, name)
    # Left to itself, peft saves embeddings and head whole as soon as they were resized. What is
    # trained of them is in the adapter's own tensors, and no one needs the rest.
    has_own = config.trainable_token_indices or config.modules_to_save
    embeddings = False if has_own else "auto"
    state: State = get_peft_model_state_dict(
        model, adapter_name=name, save_embedding_layers=embeddings
    )
    trained = None
    if joined := joined_adapter(model, state, config):
        state, config, trained = joined.state, joined.config, joined.trained
    if as_copy:
        state = _copied(state, frozen=())
    generation = copy.deepcopy(getattr(base, "generation_config", None))

    def write(folder: Path) -> None:
        save_file(_unshared(state), folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(str(folder))
        if generation is not None:
            generation.save_pretrained(folder)
        if trained is not None:
            write_text(folder / TRAINED_PART, json.dumps(trained, indent=2) + "\n")

    return _num_bytes(state), write


def _config_to_write(model: Any, adapter: str) -> Any:
    config = copy.deepcopy(model.peft_config[adapter])
    base_path = model.get_base_model().name_or_path
    config.inference_mode = True
    # An adapter of a stranger's may not say what it is for; peft's Auto classes ask.
    config.task_type = config.task_type or TASK_TYPES[kind_of(model)]
    if config.modules_to_save:
        # peft adds the names that heads may have each time it opens an adapter of a reward model.
        config.modules_to_save = list(dict.fromkeys(config.modules_to_save))
    config.base_model_name_or_path = config.base_model_name_or_path or base_path or None
    # A relative path would hold only in the folder that training was started in.
    name = config.base_model_name_or_path
    folder = Path(name).expanduser() if name else None
    if folder is not None and folder.is_dir():
        config.base_model_name_or_path = str(folder.resolve())
    # The order of a set changes from process to process, and a resumed run's files would with it.
    for field, value in vars(config).items():
        if isinstance(value, set):
            setattr(config, field, sorted(value))
    return config


def _copied(state: State, frozen: Iterable[torch.Tensor]) -> State:
    kept = {tensor.data_ptr() for tensor in frozen}
    # Tied weights are one tensor under two names, and stay one.
    copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for tensor in state.values():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in copies:
            is_kept = place[0] in kept
            copies[place] = tensor if is_kept else tensor.detach().to("cpu", copy=True)
    return {name: copies[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}


def _unshared(state: State) -> State:
    # safetensors writes each tensor whole and contiguous, and takes no memory twice.
    seen: set[int] = set()
    unshared: State = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        unshared[name] = tensor.clone() if place in seen else tensor
        unshared[name] = unshared[name].contiguous()
        seen.add(place)
    return unshared


def _num_bytes(state: State) -> int:
    sizes = {t.data_ptr(): t.numel() * t.element_size() for t in state.values()}
    return sum(sizes.values())
