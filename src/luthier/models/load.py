"""A model folder or hub name in, a causal language model or a reward model in memory out.

Refuses folders that bring code (unless allowed), folders without weights, and models that are not
of the kind that is wanted; each with the mend.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.contracts.notice import Notice
from luthier.core.errors import LuthierError, ModelError, nearest
from luthier.models.attention import choose_attention
from luthier.models.quantisation import quantisation_config, train_safely_quantised
from luthier.models.reward_model import (
    SCORE,
    ModelKind,
    auto_class,
    check_kind,
    is_scorer,
    settle_scorer,
)
from luthier.models.safety import check_model_folder
from luthier.models.settings import ModelSettings, QuantizationSettings

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model and what was substituted on the way."""

    model: PreTrainedModel
    notices: tuple[Notice, ...]


def check_model_path(settings: ModelSettings) -> None:
    """Find a wrong model path before anything slow starts.

    Raises:
        ModelError: The folder is missing, is no model, wants to run code, or has weights that are
            pickled or damaged.
    """
    folder = local_folder(settings.model_name_or_path)
    if folder is not None:
        check_model_folder(folder, settings.trust_remote_code)


def local_folder(name: str) -> Path | None:
    """Return the folder that a model name means, or None for a hub name.

    Raises:
        ModelError: The name is a path, and nothing is there.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(
            "model_name_or_path is a file",
            where=name,
            mend="Name the folder that holds config.json and the weights.",
        )
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if looks_like_hub and not Path(name).parent.is_dir():
        return None
    if "/" not in name and os.sep not in name and not name.startswith("."):
        return None
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    close = nearest(path.name, siblings)
    raise ModelError(
        "no such model folder",
        where=name,
        mend=f"Did you mean {path.parent / close}?"
        if close
        else "Check the path; a hub name has the form owner/name.",
    )


def load_model(
    settings: ModelSettings,
    quantization: QuantizationSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    weights_from: str | None = None,
    packed: bool = False,
    kind: ModelKind = "causal_lm",
) -> LoadedModel:
    """Load the base model onto a device.

    Args:
        settings: Which model, and how its attention is computed.
        quantization: Whether its weights are quantised on load.
        device: Where it goes.
        dtype: Type of its weights: float32 where they are trained.
        weights_from: A folder to read instead of the settings' model (a checkpoint).
        packed: Whether training batches are packed rows; `packing_support` must have agreed.
        kind: What it is for. The head of a reward model is drawn from torch's random numbers,
            where the folder holds a language model.

    Returns:
        The model and notices.

    Raises:
        ModelError: It can't be loaded, or is not of that kind; the message names the folder and the
            mend.
        MissingExtraError: `quantization_bit` is set and bitsandbytes is not installed.
    """
    name = weights_from or settings.model_name_or_path
    check_model_path(settings.model_copy(update={"model_name_or_path": name}))
    folder = local_folder(name)
    config = read_config(settings, name)
    check_kind(config, kind, name)
    attention, notice = choose_attention(
        settings.flash_attn, device.type, packed=packed, config=config
    )
    bits_config, bits_notice = quantisation_config(quantization, device, dtype)
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if bits_config is not None:
        arguments["quantization_config"] = bits_config
        arguments["device_map"] = {"": device}
    if folder is None:
        arguments["revision"] = settings.model_revision
    if kind == "reward":
        arguments["num_labels"] = 1
    try:
        # Whatever transformers raises here has its cause in the folder, the hub or the machine.
        loaded: Any = auto_class(kind).from_pretrained(
            str(folder or name),
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:
        raise _explain(name, folder, error) from error
    model, report = loaded
    if kind == "reward":
        settle_scorer(model, name)
    is_new_head = kind == "reward" and not is_scorer(config)
    new = {key for key in report["missing_keys"] if is_new_head and key.startswith(f"{SCORE}.")}
    _refuse_missing_weights(name, report["missing_keys"] - new)
    if bits_config is None:
        model.to(device)
    else:
        train_safely_quantised(model)
    return LoadedModel(model, tuple(n for n in (notice, bits_notice) if n is not None))


def read_config(settings: ModelSettings, name: str | None = None) -> PretrainedConfig:
    """Return the config of a model, as transformers reads it.

    Args:
        settings: Which model.
        name: A folder to read instead.

    Raises:
        ModelError: It can't be read, or is of a kind that transformers doesn't know.
    """
    from transformers import AutoConfig

    name = name or settings.model_name_or_path
    folder = local_folder(name)
    try:
        found: PretrainedConfig = AutoConfig.from_pretrained(
            str(folder or name),
            trust_remote_code=settings.trust_remote_code,
            **({} if folder is not None else {"revision": settings.model_revision}),
        )
    # Whatever transformers raises here has its cause in the folder, the hub or the machine.
    except Exception as error:
        raise _explain(name, folder, error) from error
    return found


def _refuse_missing_weights(name: str, missing: set[str]) -> None:
    # transformers fills them with random numbers, prints a table and goes on.
    if missing:
        raise ModelError(
            f"the weights of {len(missing)} parameters are missing, such as {min(missing)}",
            where=name,
            mend="The download may be incomplete, or this is no causal language model.",
        )


def _explain(name: str, folder: Path | None, error: Exception) -> LuthierError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if folder is None:
        return ModelError(
            f"the model can't be fetched from the hub: {first_line}",
            where=name,
            mend="Check the name and the network, or give a local folder.",
        )
    if not any(folder.glob("*.safetensors")):
        return ModelError(
            "the folder holds no weights (*.safetensors)",
            where=name,
            mend="The download may be incomplete: fetch the model again.",
        )
    return ModelError(
        f"transformers can't load this model: {first_line}",
        where=name,
        mend="Check that it is a causal language model and that the download is complete.",
    )
