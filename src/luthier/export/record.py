"""export.json: what an artifact is, and how it did in its check.

It is written last: a folder that has one is whole. The hashes are of every other file in the
folder, so that anyone can tell whether what arrived is what left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.core.clock import now
from luthier.core.errors import RunError
from luthier.core.files import write_json
from luthier.core.hashing import hash_file
from luthier.export.check import CheckResult, bound_of
from luthier.export.probe import PROBE_FOLDER
from luthier.export.source import read_json
from luthier.export.target import Artifact

EXPORT_JSON = "export.json"
_FORMAT = 1


def write_record(
    artifact: Artifact,
    target: str,
    result: CheckResult,
    facts: Mapping[str, Any],
    luthier: Mapping[str, Any],
    seconds: float,
) -> None:
    """Write export.json beside an artifact.

    Args:
        artifact: Whole, with its probe beside it.
        target: Name of its target.
        result: Of the check.
        facts: Of the model: run, data, settings.
        luthier: Version and hash of the code that wrote it.
        seconds: What writing took.
    """
    sizes = file_sizes(artifact.folder)
    own = {name: size for name, size in sizes.items() if not _is_probe(name)}
    record = {
        "format": _FORMAT,
        "made": now(),
        "target": target,
        "type": artifact.kind,
        "main": artifact.main,
        "bytes": sum(own.values()),
        "probe_bytes": sum(sizes.values()) - sum(own.values()),
        "seconds": round(seconds, 2),
        "notes": list(artifact.notes),
        "check": {
            "verdict": result.verdict,
            **asdict(result),
            "bound": asdict(bound_of(artifact.kind)),
        },
        "luthier": dict(luthier),
        **{name: value for name, value in facts.items() if value is not None},
        "files": {name: hash_file(artifact.folder / name) for name in sizes},
    }
    write_json(artifact.folder / EXPORT_JSON, record)


def read_record(folder: Path) -> dict[str, Any]:
    """Read export.json.

    Raises:
        RunError: There is none, or it is of another format.
        ModelError: It is damaged.
    """
    if not (folder / EXPORT_JSON).is_file():
        raise RunError(
            f"this folder holds no export: {EXPORT_JSON} is missing",
            where=str(folder),
            mend="Name a folder that `luthier export` made.",
        )
    record = read_json(folder / EXPORT_JSON)
    if record.get("format") != _FORMAT or not isinstance(record.get("files"), dict):
        raise RunError(
            f"{EXPORT_JSON} is of another format than this version of luthier reads",
            where=str(folder),
            mend="Export the model again.",
        )
    return record


def changed_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the files of an artifact, a line for each."""
    found: list[str] = []
    for name, expected in record["files"].items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif hash_file(path) != expected:
            found.append(f"{name} is not the file that was exported: its sha256 differs")
    return found


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file in an artifact's folder, but export.json, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {name: size for name, size in sizes.items() if name != EXPORT_JSON}


def _is_probe(name: str) -> bool:
    return name.startswith(f"{PROBE_FOLDER}/")
