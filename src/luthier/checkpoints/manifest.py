"""The seal of a checkpoint: sizes and hashes of its files. What is not sealed does not exist.

A checkpoint may come from a stranger: no name in its manifest leads out of its folder.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from luthier.core.errors import RunError
from luthier.core.files import write_json
from luthier.core.hashing import hash_file, hash_json

MANIFEST = "manifest.json"
FORMAT = 2


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder, as the last of its files.

    Args:
        folder: Complete but for the manifest.
        facts: What else to record: step, metrics, hashes of settings and data.
    """
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": hash_file(folder / name)}
        for name in _file_names(folder)
    }
    written = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {"format": FORMAT, "written": written, **facts, "files": files}
    # The manifest vouches for the files, and this hash for the manifest.
    write_json(folder / MANIFEST, manifest | {"seal": hash_json(manifest)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest.

    Raises:
        RunError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            "this folder is not a finished checkpoint: it has no manifest.json",
            where=str(folder),
            mend="Give a folder below RUN/checkpoints, or the bare flag for the newest good one.",
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RunError(
            f"the checkpoint's manifest is damaged: {error}", where=str(path), mend=_USE_ANOTHER
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(
            "the checkpoint's manifest has a format that this luthier does not know",
            where=str(path),
            mend="Use the luthier version that wrote it.",
        )
    found = manifest.pop("seal", None)
    if found != hash_json(manifest):
        raise RunError(
            "the checkpoint's manifest is damaged: its content has changed since it was sealed",
            where=str(path),
            mend=_USE_ANOTHER,
        )
    if not _is_well_formed(manifest):
        raise RunError(
            "the checkpoint's manifest is sealed, but its content is not what luthier writes",
            where=str(path),
            mend=_USE_ANOTHER,
        )
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest, and return the manifest.

    A file that the manifest does not know is no damage: file managers and network disks leave
    such files, and nothing that was sealed has changed. `unknown_files` names them.

    Raises:
        RunError: A file is missing, shorter or longer, its content has changed, or its name leads
            out of the folder.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        if (problem := _problem(folder, name, expected)) is not None:
            raise RunError(problem, where=str(folder), mend=_USE_ANOTHER)
    return manifest


def unknown_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the names of the files that lie in a checkpoint and were not there at its sealing."""
    return [name for name in _file_names(folder) if name not in manifest["files"]]


def _problem(folder: Path, name: str, expected: dict[str, Any]) -> str | None:
    try:
        if not name.isprintable() or not _stays_inside(folder, name):
            return f"the file name {name!r} is unsafe: it leads out of the checkpoint"
        file = folder / name
        if not file.is_file():
            return f"{name} is missing from the checkpoint"
        size = file.stat().st_size
        if size != expected["bytes"]:
            return f"{name} has {size} bytes, and was sealed with {expected['bytes']}"
        found = hash_file(file)
    except OSError as error:
        return f"{name} can't be read: {error.strerror}"
    if found != expected["sha256"]:
        return f"the content of {name} has changed since it was sealed"
    return None


def _stays_inside(folder: Path, name: str) -> bool:
    path = PurePosixPath(name)
    # A backslash or a drive's colon means something on Windows only, and luthier writes neither.
    if path.is_absolute() or ".." in path.parts or any(mark in name for mark in "\\:"):
        return False
    # luthier writes no links, and one could show a file of anywhere as the checkpoint's own.
    links = (folder.joinpath(*path.parts[:depth]) for depth in range(1, len(path.parts) + 1))
    return not any(link.is_symlink() for link in links)


def _file_names(folder: Path) -> list[str]:
    return [
        file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    ]


_FACTS = {"bytes", "sha256"}


def _is_well_formed(manifest: dict[str, Any]) -> bool:
    files, metrics = manifest.get("files"), manifest.get("metrics", {})
    return (
        isinstance(files, dict)
        and all(isinstance(file, dict) and file.keys() >= _FACTS for file in files.values())
        and isinstance(metrics, dict)
        and _is_loss(metrics.get("eval_loss"))
        and isinstance(manifest.get("fingerprint", {}), dict)
        and _is_time(manifest.get("written"))
    )


def _is_loss(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _is_time(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


_USE_ANOTHER = (
    "Go on from an earlier checkpoint; a bare --resume_from_checkpoint finds the newest good one."
)
