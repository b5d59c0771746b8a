"""Refuse model folders that bring code, before any library reads them.

Source of the list: transformers CVE-2026-4372 and the keys that lead to imports from a config.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.core.errors import ModelError

_CODE_KEYS = ("auto_map", "_attn_implementation_internal", "trust_remote_code")


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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(
            f"the model's config is not valid JSON: {error}",
            where=str(path),
            mend="The download may be incomplete: fetch the model again.",
        ) from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(
            "the model's config names no model_type",
            where=str(path),
            mend="Point model_name_or_path at a causal language model's folder.",
        )
    return config


def refuse_code(folder: Path, config: dict[str, Any], trust_remote_code: bool) -> None:
    """Raise if a config would make transformers run code out of the model folder.

    Raises:
        ModelError: A key that leads to code stands anywhere in the config, and
            `trust_remote_code` is off.
    """
    found = sorted(_keys_of(config) & set(_CODE_KEYS))
    if found and not trust_remote_code:
        raise ModelError(
            f"the model wants to run its own Python code ({', '.join(found)} in its config)",
            where=str(folder / "config.json"),
            mend="Read that code first. If you trust it, give --trust_remote_code.",
        )


def _keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_keys_of(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_keys_of(item) for item in value)) if value else set()
    return set()


def _what_it_is(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "It is an adapter: name its base model here, and it as adapter_name_or_path."
    if any(folder.glob("*.gguf")):
        return "It holds a GGUF file: training starts from the original, unquantised model."
    return "Point model_name_or_path at the folder that has config.json and the weights."
