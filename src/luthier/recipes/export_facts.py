"""What is known of an exported model: for its card, and for export.json.

In: where the model lies, and what its run recorded. Out: base, licence, data, settings, metrics;
what nobody recorded is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.models.load import local_folder
from luthier.models.settings import ModelSettings
from luthier.recipes.answering import ModelPlace
from luthier.recipes.manifest import describe_model
from luthier.recipes.run_record import RunRecord, read_run

_SETTINGS = (
    *("stage", "finetuning_type", "learning_rate", "num_train_epochs", "max_steps", "cutoff_len"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "lora_rank", "lora_alpha"),
    *("use_dora", "use_rslora", "quantization_bit", "template", "seed"),
)
_METRICS = ("eval_loss", "eval_perplexity", "loss")
_LICENCE = re.compile(r"^license: *[\"']?([\w.+-]+)", re.MULTILINE)
_HEAD_CHARS = 4000


def model_facts(place: ModelPlace) -> dict[str, Any]:
    """Return what is known, as JSON."""
    folder = place.folder
    facts: dict[str, Any] = {
        "name": (place.run or folder).name if folder is not None else place.weights,
        "base": place.weights,
        "licence": _licence(place.weights),
        "model": describe_model(
            ModelSettings(
                model_name_or_path=place.weights,
                model_revision=place.revision,
                adapter_name_or_path=None if place.adapter is None else str(place.adapter),
            )
        ),
    }
    return facts if place.run is None else facts | _of_run(read_run(place.run), place)


def _of_run(run: RunRecord, place: ModelPlace) -> dict[str, Any]:
    settings = run.flat_settings
    base = settings.get("model_name_or_path") or place.weights
    return {
        "base": base,
        "licence": _licence(base),
        "run": str(run.folder.resolve()),
        "checkpoint": place.checkpoint,
        "settings_sha256": run.manifest.get("settings_sha256"),
        "trained_by": run.manifest.get("luthier"),
        "data": _data(run.manifest.get("data") or {}),
        "settings": {n: settings[n] for n in _SETTINGS if settings.get(n) not in (None, False)},
        "metrics": {n: v for n, v in run.last_metrics.items() if n in _METRICS},
    }


def _data(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hash of the prepared data, and of each file that went in."""
    inputs = [source for side in (manifest.get("inputs") or {}).values() for source in side]
    files = {str(source["name"]): f"sha256 {source.get('sha256')}" for source in inputs}
    return {"prepared data": manifest["key"], **files} if "key" in manifest else files


def _licence(base: str) -> str | None:
    """Return what the base's own card names as its licence."""
    folder = local_folder(base) if _is_there(base) else None
    card = None if folder is None else folder / "README.md"
    if card is None or not card.is_file():
        return None
    found = _LICENCE.search(card.read_text(encoding="utf-8", errors="replace")[:_HEAD_CHARS])
    return None if found is None else found.group(1)


def _is_there(base: str) -> bool:
    return Path(base).expanduser().is_dir()
