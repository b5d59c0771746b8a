"""The run's manifest: which data, code, versions and machine made this model, and what came of it.

Of the environment only the variables of a fixed list are recorded (`determinism.py`), and whatever
looks like a secret is hidden before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import luthier
from luthier.contracts.notice import Notice
from luthier.core.clock import now
from luthier.core.files import write_json, write_text
from luthier.core.hashing import hash_file, hash_json, hash_sampled, hash_text
from luthier.core.secrets import redact_json
from luthier.engine.precision import choose_device, choose_precision
from luthier.models.load import local_folder
from luthier.models.settings import ModelSettings
from luthier.recipes.determinism import computing_facts, deciding_variables
from luthier.recipes.machine import machine_facts
from luthier.recipes.packages import package_versions
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import MANIFEST, settings_of
from luthier.recipes.source_version import source_commit, source_diff, source_sha256

DIFF = "luthier.diff"
"""The file of a run's folder with the changes of luthier's source that no commit has."""

_OF_THE_CORPUS = ("data_version", "key", "inputs", "packages")
_OF_A_STEP = ("name", "rows_in", "rows_out", "dropped")
_OF_A_PART = (
    *("started", "ended", "command", "goes_on_from", "settings_sha256", "luthier", "outcome"),
)


def describe_run(
    config: RunConfig,
    command: Sequence[str],
    data: Mapping[str, Any],
    notices: Sequence[Notice],
    corpus: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect what can be known about a run when it starts.

    Args:
        config: The settings.
        command: The command line, word by word.
        data: The prepared data's manifest: hashes of files, tokenizer and template among it.
        notices: What was substituted.
        corpus: The manifest of the corpus that steps made of the files; None without steps.
    """
    device = choose_device()
    cleaned = {} if corpus is None else {"corpus": _describe_corpus(corpus)}
    return {
        "luthier": describe_luthier(),
        "started": now(),
        "working_folder": str(Path.cwd()),
        "command": list(command),
        "settings_sha256": hash_json(settings_of(config)),
        # As in run.yaml, which takes a hundred times as long to read: for lists of many runs.
        "settings": settings_of(config),
        "seed": config.run.seed,
        "data": dict(data),
        **cleaned,
        **describe_model(config.model),
        "packages": package_versions(),
        "machine": machine_facts(),
        "computing": {
            "device": device.type,
            "precision": choose_precision(config.training, device)[0].name,
            **computing_facts(),
        },
        "environment": deciding_variables(),
        "notices": [notice.as_json() for notice in notices],
    }


def _describe_corpus(corpus: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run records of its corpus: what it was made of, and what was dropped."""
    facts = {name: corpus[name] for name in _OF_THE_CORPUS}
    if "steps" not in corpus:
        return facts  # It was not made, only looked for.
    statistics = corpus["statistics"]
    sides = {side: {"languages": statistics[side]["languages"]} for side in ("before", "after")}
    steps = [{name: step[name] for name in _OF_A_STEP} for step in corpus["steps"]]
    return facts | {"steps": steps, "statistics": sides}


def describe_luthier() -> dict[str, Any]:
    """Return which luthier runs: version, hash of its source, and commit where it has one."""
    facts = {"version": luthier.__version__, "source_sha256": source_sha256(), **source_commit()}
    diff = source_diff()
    return facts | ({"diff_sha256": hash_text(diff)} if diff else {})


def keep_source_diff(folder: Path) -> None:
    """Write what was changed in luthier since its commit into a run's folder, if anything was.

    `describe_luthier` names the file's hash. What an earlier start of the run left is replaced.
    """
    diff = source_diff()
    if diff:
        write_text(folder / DIFF, diff)
    else:
        (folder / DIFF).unlink(missing_ok=True)


def earlier_parts(folder: Path) -> list[dict[str, Any]]:
    """Return what the manifest of a run says of the times that it was started before."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    part = {name: found[name] for name in _OF_A_PART if name in found}
    return [*found.get("earlier", []), part]


def describe_model(settings: ModelSettings) -> dict[str, Any]:
    """Return what tells the base model, and the adapter that training goes on from, from others.

    Returns:
        `model` and, where there are any, `adapter` (the last of them) and `adapter_1` and so on
        (those before it): name, folder, and hashes of config and weights (`hash_sampled`: no
        gigabytes are read). A hub model has the commit that was fetched.
    """
    facts = {"model": _describe(settings.model_name_or_path, settings.model_revision)}
    *earlier, last = settings.adapters or [None]
    for number, name in enumerate(earlier, start=1):
        facts[f"adapter_{number}"] = _describe(str(name), None)
    return facts | ({"adapter": _describe(last, None)} if last else {})


def _describe(name: str, revision: str | None) -> dict[str, Any]:
    folder = local_folder(name)
    if folder is not None:
        return {"name": name, "path": str(folder.resolve()), **_contents(folder)}
    snapshot = _fetched(name, revision)
    if snapshot is None:
        return {"name": name}
    return {"name": name, "commit": snapshot.name, **_contents(snapshot)}


def _contents(folder: Path) -> dict[str, Any]:
    configs = sorted(folder.glob("*config.json"))
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "config_sha256": {path.name: hash_file(path) for path in configs},
        "weights_sha256": {path.name: hash_sampled(path) for path in weights},
    }


def _fetched(name: str, revision: str | None) -> Path | None:
    """Return the folder of the hub's cache that holds a model, or None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a run, secrets hidden."""
    write_json(folder / MANIFEST, redact_json(facts))
