"""Save a trained model so that transformers, peft and vLLM open the folder as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h")
_SAMPLING_CUTOFFS = ("typical_p", "epsilon_cutoff", "eta_cutoff")


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    stop_token_ids: Sequence[int],
) -> None:
    """Write weights (or adapter), tokenizer, chat template and stop tokens.

    Args:
        model: A transformers model, or a peft model around one.
        tokenizer: With the chat template that was trained.
        folder: Where to; created if missing.
        stop_token_ids: Ids that end an answer, for generation_config.json.

    Raises:
        OSError: The disk is full or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    generation = base.generation_config
    generation.eos_token_id = list(stop_token_ids)
    generation.pad_token_id = tokenizer.pad_token_id
    # Sampling settings left over from the base model would make saving fail if they contradict.
    if not generation.do_sample:
        for name in (*_SAMPLING, *_SAMPLING_CUTOFFS):
            setattr(generation, name, None)
    if hasattr(model, "peft_config"):
        _anchor_base_path(model)
        generation.save_pretrained(folder)
    model.save_pretrained(folder)
    if hasattr(model, "peft_config"):
        # peft adds a model card that is all "More Information Needed"; the manifest says more.
        (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def _anchor_base_path(model: Any) -> None:
    # A relative path would hold only in the folder that training was started in.
    for config in model.peft_config.values():
        name = config.base_model_name_or_path
        folder = Path(name).expanduser() if name else None
        if folder is not None and folder.is_dir():
            config.base_model_name_or_path = str(folder.resolve())
