"""Prepared data on disk: what a folder of it holds, how it is written, when it is trusted.

    <prepared_dir>/<key>/
      train/, val/       Arrow files of `datasets`, val only where there is one
      rejected.jsonl     rows that left, with the reason
      manifest.json      what went in, what was done, what came out; hash and size of each file

A folder appears whole or not at all, and is used again only if its key and every file in it are
what the manifest says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.contracts.conversation import Rejection
from luthier.contracts.notice import Notice
from luthier.core.cache import cache_folder
from luthier.core.disk import check_room
from luthier.core.disk import disk_errors as core_disk_errors
from luthier.core.files import STAGING_PREFIX, staged_folder, write_json
from luthier.core.hashing import hash_file
from luthier.corpus.load import write_rejected

if TYPE_CHECKING:
    import datasets

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"

_WHAT = "prepared data"
_ELSEWHERE = "prepared_dir (or LUTHIER_CACHE) to a folder"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data that is ready to train on.

    Attributes:
        train: Training rows, in the order of the files.
        val: Validation rows, or None.
        folder: Where they lie.
        manifest: What stands in manifest.json.
        notices: What had to be substituted, and the warnings of `checks.py`.
        from_cache: Whether an earlier run prepared them.
    """

    train: datasets.Dataset
    val: datasets.Dataset | None
    folder: Path
    manifest: dict[str, Any]
    notices: tuple[Notice, ...]
    from_cache: bool


def row_lengths(rows: datasets.Dataset) -> list[int]:
    """Return the tokens of each row as a list.

    Batches are ordered by them at every epoch and evaluation, and a column of a data set reads
    Arrow anew at every look-up.
    """
    return list(rows["length"][:])


def prepared_root(prepared_dir: str | None) -> Path:
    """Return the folder that holds all prepared data: the setting's, else luthier's cache."""
    if prepared_dir is not None:
        return Path(prepared_dir).expanduser()
    return cache_folder("prepared")


def write_prepared(
    folder: Path,
    splits: dict[str, datasets.Dataset],
    rejections: Sequence[Rejection],
    manifest: dict[str, Any],
    needed_bytes: int,
) -> None:
    """Write a folder of prepared data, whole or not at all.

    Args:
        folder: Where it is to lie; what lies there is replaced.
        splits: The data sets by name.
        rejections: The rows that left.
        manifest: All of the manifest but the list of files.
        needed_bytes: About how much room the data takes.

    Raises:
        LuthierError: The disk is full, or the folder can't be written.
    """
    with disk_errors(folder.parent, needed_bytes):
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_room(folder.parent, _WHAT, _ELSEWHERE, needed_bytes)
        _remove_abandoned(folder)
        with staged_folder(folder) as staging, _no_progress_bars():
            for name, rows in splits.items():
                rows.save_to_disk(str(staging / name))
            write_rejected(staging / REJECTED, rejections)
            write_json(staging / MANIFEST, {**manifest, "files": _files(staging)})


def read_prepared(folder: Path, key: str) -> Prepared | None:
    """Return the data of a folder, or None if it isn't there, isn't whole or isn't of this key."""
    import datasets

    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if manifest.get("key") != key or manifest.get("files") != _files(folder):
        return None
    with _no_progress_bars():
        splits = {
            name: datasets.Dataset.load_from_disk(str(folder / name)) for name in manifest["splits"]
        }
    return Prepared(
        train=splits["train"],
        val=splits.get("val"),
        folder=folder,
        manifest=manifest,
        notices=tuple(Notice(**notice) for notice in manifest["warnings"]),
        from_cache=True,
    )


def disk_errors(root: Path, needed_bytes: int = 0) -> AbstractContextManager[None]:
    """Say plainly that a disk is full or a folder closed; see `core.disk.disk_errors`."""
    return core_disk_errors(root, _WHAT, _ELSEWHERE, needed_bytes)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed run left half-written; the caller holds the lock of this key."""
    for left in folder.parent.glob(f"{STAGING_PREFIX}{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return hash and size of each file but the manifest."""
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": hash_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


@contextmanager
def _no_progress_bars() -> Generator[None]:
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
