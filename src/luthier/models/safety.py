"""Refuse model and adapter folders that bring code, before any library reads them.

In: a folder. Out: nothing, or an error that names file and key. Source of the list: transformers
CVE-2026-4372 and the keys that lead to imports from a config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from luthier.core.errors import ModelError
from luthier.models.weight_files import check_weights

ADAPTER_CONFIG = "adapter_config.json"

_CODE_KEYS = frozenset(
    {"auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "megatron_config"}
    | {"_attn_implementation_internal", "_experts_implementation_internal"}
)
"""megatron_config makes peft import the module that `megatron_core` beside it names."""


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's config.json.

    Raises:
        ModelError: The file is missing or is not a JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            "this folder holds no config.json, so it is not a model in the Hugging Face layout",
            where=str(folder),
            mend=_what_it_is(folder),
        )
    config = _read(path)
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(
            "the model's config names no model_type",
            where=str(path),
            mend="Point model_name_or_path at a causal language model's folder.",
        )
    return config


def check_model_folder(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a model folder that would run code, or whose weights are pickled or damaged.

    Args:
        folder: A folder in the Hugging Face layout. An adapter in it is checked too, for
            transformers loads it with the model.
        trust_remote_code: Let it run its own Python code.

    Raises:
        ModelError: As said; each names the file and the mend.
    """
    config = read_model_config(folder)
    refuse_code(folder, trust_remote_code)
    named = config.get("transformers_weights")
    check_weights(folder, "model", None if named is None else str(named))
    if (folder / ADAPTER_CONFIG).is_file():
        check_adapter_folder(folder)


def check_adapter_folder(folder: Path) -> None:
    """Refuse an adapter folder that would run code, is no LoRA, or has pickled or damaged weights.

    Raises:
        ModelError: As said; each names the file and the mend.
    """
    refuse_code(folder, trust_remote_code=False)
    config = _read(folder / ADAPTER_CONFIG) if (folder / ADAPTER_CONFIG).is_file() else {}
    kind = config.get("peft_type", "LORA") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ModelError(
            f"the adapter is of the kind {kind!r}",
            where=str(folder / ADAPTER_CONFIG),
            mend="luthier loads LoRA adapters; merge this one into its base with peft.",
        )
    check_weights(folder, "adapter_model")


def refuse_code(folder: Path, trust_remote_code: bool) -> None:
    """Raise if a folder's settings would make a library run code that comes with them.

    All of them are looked at: config.json, and those of tokenizer, generation, processor, adapter.

    Raises:
        ModelError: A key that leads to code stands anywhere in one of them, and
            `trust_remote_code` is off; or one of them is not JSON.
    """
    for path in sorted(folder.glob("*config*.json")):
        found = sorted(set(_code_keys(_read(path)))) if path.is_file() else []
        if found and not trust_remote_code:
            raise ModelError(
                f"the model wants to run its own Python code ({', '.join(found)} in its config)",
                where=str(path),
                mend="Read that code first. If you trust it, give --trust_remote_code.",
            )


def _code_keys(value: Any) -> Iterator[str]:
    """Yield the keys that lead to code; by a stack, for a config may be nested deep."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(cast(list[Any], node))
        elif isinstance(node, dict):
            for key, held in cast(dict[str, Any], node).items():
                if (key in _CODE_KEYS and held is not None) or _is_kernel(key, held):
                    yield key
                stack.append(held)


def _is_kernel(key: str, held: Any) -> bool:
    """Return whether a setting asks for a kernel that the hub delivers: owner/name."""
    if not key.endswith("_implementation"):
        return False
    names = cast(dict[str, Any], held).values() if isinstance(held, dict) else [held]
    return any("/" in name for name in names if isinstance(name, str))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(
            f"the model's config is not valid JSON: {error}",
            where=str(path),
            mend="The download may be incomplete: fetch the model again.",
        ) from None


def _what_it_is(folder: Path) -> str:
    if (folder / ADAPTER_CONFIG).is_file():
        return "It is an adapter: name its base model here, and it as adapter_name_or_path."
    if any(folder.glob("*.gguf")):
        return "It holds a GGUF file: training starts from the original, unquantised model."
    return "Point model_name_or_path at the folder that has config.json and the weights."
