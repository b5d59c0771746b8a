"""The seal of a checkpoint: sizes and hashes of its files. What is not sealed does not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.core.errors import RunError
from luthier.core.files import write_json
from luthier.core.hashing import hash_file, hash_json

MANIFEST = "manifest.json"
FORMAT = 1


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder, as the last of its files.

    Args:
        folder: Complete but for the manifest.
        facts: What else to record: step, metrics, hashes of settings and data.
    """
    files = {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hash_file(file),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    }
    manifest = {"format": FORMAT, **facts, "files": files}
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
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
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
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest, and return the manifest.

    Raises:
        RunError: A file is missing, shorter or longer, or its content has changed.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise RunError(
                f"{name} is missing from the checkpoint", where=str(folder), mend=_USE_ANOTHER
            )
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise RunError(
                f"{name} has {size} bytes, and was sealed with {expected['bytes']}",
                where=str(folder),
                mend=_USE_ANOTHER,
            )
        if hash_file(file) != expected["sha256"]:
            raise RunError(
                f"the content of {name} has changed since it was sealed",
                where=str(folder),
                mend=_USE_ANOTHER,
            )
    return manifest


_USE_ANOTHER = (
    "Go on from an earlier checkpoint; a bare --resume_from_checkpoint finds the newest good one."
)
