"""A prepared corpus on disk: what its folder holds, and when it is trusted.

    <folder>/
      train/part-00000.parquet, ...   rows of the canonical record, in order
      val/part-00000.parquet, ...     only where there are validation rows
      dropped.parquet                 rows that left: step, reason, matched row, score, content
      manifest.json                   inputs, steps, counts, versions; hash and size of each file
      data.html, data.md              the data card

A folder appears whole or not at all. It is read only if every Parquet file is what the manifest
says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.core.errors import DataError
from luthier.core.hashing import hash_file

KIND = "luthier corpus"
MANIFEST = "manifest.json"
TRAIN, VAL = "train", "val"
DROPPED = "dropped.parquet"

_MEND = "Prepare it again: luthier prepare."


def is_corpus_folder(folder: Path) -> bool:
    """Tell whether a folder is a prepared corpus, by its manifest alone."""
    return _manifest(folder) is not None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared corpus.

    Raises:
        DataError: The folder is none.
    """
    found = _manifest(folder)
    if found is None:
        raise DataError(
            "this is no corpus that luthier prepared",
            where=str(folder),
            mend="Name the folder that `luthier prepare` wrote, the one with manifest.json.",
        )
    return found


def side_files(folder: Path, side: str) -> list[Path]:
    """Return the files of one side in order, each as its manifest says it is.

    Args:
        folder: A prepared corpus.
        side: `train` or `val`.

    Returns:
        Nothing where the corpus has no such side.

    Raises:
        DataError: The folder is no prepared corpus, or a file is missing or was changed.
    """
    listed: dict[str, dict[str, Any]] = read_manifest(folder)["files"]
    names = sorted(name for name in listed if name.startswith(f"{side}/"))
    for name in names:
        check_file(folder, name, listed[name])
    return [folder / name for name in names]


def has_side(folder: Path, side: str) -> bool:
    """Tell whether a prepared corpus has rows on a side, by its manifest alone.

    Raises:
        DataError: The folder is no prepared corpus.
    """
    return any(name.startswith(f"{side}/") for name in read_manifest(folder)["files"])


def check_file(folder: Path, name: str, listed: dict[str, Any]) -> None:
    """Refuse a file that is not what the manifest says.

    Args:
        folder: The prepared corpus.
        name: The file, relative to it.
        listed: What the manifest says of it: `sha256` and `bytes`.

    Raises:
        DataError: It is missing or was changed.
    """
    path = folder / name
    if not path.is_file():
        raise DataError("a file of the prepared corpus is missing", where=str(path), mend=_MEND)
    if path.stat().st_size != listed["bytes"] or hash_file(path) != listed["sha256"]:
        raise DataError(
            "a file of the prepared corpus was changed or is damaged", where=str(path), mend=_MEND
        )


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("kind") == KIND else None
