"""The run's manifest: which data, code, versions and machine made this model.

No environment variable and no token is recorded.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import luthier
from luthier.contracts.notice import Notice
from luthier.core.files import write_json
from luthier.core.hashing import hash_file, hash_json
from luthier.models.load import local_folder
from luthier.recipes.machine import machine_facts
from luthier.recipes.packages import package_versions
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_folder import MANIFEST, settings_of


def describe_run(
    config: RunConfig,
    command: Sequence[str],
    data: Mapping[str, Any],
    notices: Sequence[Notice],
) -> dict[str, Any]:
    """Collect what can be known about a run when it starts.

    Args:
        config: The settings.
        command: The command line, word by word.
        data: The prepared data's manifest.
        notices: What was substituted.
    """
    return {
        "luthier": {"version": luthier.__version__, **source_commit()},
        "started": now(),
        "command": list(command),
        "settings_sha256": hash_json(settings_of(config)),
        "seed": config.run.seed,
        "data": dict(data),
        "model": describe_model(config.model.model_name_or_path),
        "packages": package_versions(),
        "machine": machine_facts(),
        "notices": [notice.as_json() for notice in notices],
    }


def earlier_parts(folder: Path) -> list[dict[str, Any]]:
    """Return what the manifest of a run says of the times that it was started before."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    names = ("started", "ended", "command", "goes_on_from", "outcome")
    part = {name: found[name] for name in names if name in found}
    return [*found.get("earlier", []), part]


def describe_model(name: str) -> dict[str, Any]:
    """Return what tells one base model from another without reading gigabytes."""
    folder = local_folder(name)
    if folder is None:
        return {"name": name}
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "name": name,
        "path": str(folder.resolve()),
        "config_sha256": hash_file(folder / "config.json"),
        "weight_bytes": {file.name: file.stat().st_size for file in weights},
    }


def source_commit() -> dict[str, Any]:
    """Return the commit of luthier's own source, where it runs from a git checkout."""
    folder = Path(luthier.__file__).parent
    # Installed into an environment below somebody's project, that project's commit is not ours.
    if not _git(folder, "ls-files", "--", "__init__.py"):
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(folder, "status", "--porcelain", "--", ".")
    return {"commit": commit, "changed_since_commit": bool(changed)}


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a run."""
    write_json(folder / MANIFEST, dict(facts))


def now() -> str:
    """Return the time, with its zone, as manifests write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(folder: Path, *arguments: str) -> str | None:
    # It only looks: without this, `status` would take the index's lock.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
