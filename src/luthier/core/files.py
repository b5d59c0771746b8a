"""Files that are whole or not there: write to the side, flush to the disk, rename."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAGING_PREFIX = ".staging-"
"""Folders with this prefix are unfinished and may be removed by whoever owns the parent."""

STALE_S = 24 * 3600
"""An unfinished folder that nobody has touched for this long was left by a process that died."""


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part.

    Raises:
        OSError: The disk is full or the folder can't be written; the old file is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(f"{STAGING_PREFIX}{path.name}-{os.getpid()}")
    try:
        with side.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        side.replace(path)
    except BaseException:
        side.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def append_jsonl(path: Path, record: Any) -> None:
    """Add one record to a JSON-lines file, in one write, so that readers see whole lines."""
    line = json.dumps(record, ensure_ascii=False) + "\n"
    with path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(line)


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Write a JSON-lines file, whole or not at all."""
    write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))


def read_jsonl(path: Path) -> list[Any]:
    """Return the records of a JSON-lines file; none where there is no file.

    A last line that a killed process left torn is not read, not even where it ends in the middle of
    a character.
    """
    if not path.exists():
        return []
    *whole, _torn = path.read_bytes().split(b"\n")
    return [json.loads(line.decode("utf-8", errors="replace")) for line in whole]


@contextmanager
def staged_folder(target: Path) -> Generator[Path]:
    """Yield an empty folder beside `target`, and rename it to `target` if the block succeeds.

    If the block fails the folder is removed and `target` is as it was. A `target` that exists is
    replaced at the end, not before.

    Raises:
        OSError: The disk is full or the parent can't be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f"{STAGING_PREFIX}{target.name}-{uuid.uuid4().hex[:8]}")
    staging.mkdir()
    try:
        yield staging
        _sync_tree(staging)
        _swap_in(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextmanager
def staged_files(folder: Path, *, last: str = "") -> Generator[Path]:
    """Yield an empty folder, and move its files into `folder` if the block succeeds.

    Each file is whole when it appears, and takes the place of one of its name. If the block fails,
    `folder` is as it was.

    Args:
        folder: Where the files go.
        last: Ending of the files that come last: whoever finds them finds the others.

    Raises:
        OSError: The disk is full or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f"{STAGING_PREFIX}files-{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        yield staging
        _sync_tree(staging)
        for file in sorted(staging.iterdir(), key=lambda file: file.name.endswith(last)):
            file.replace(folder / file.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_stale_staging(parent: Path) -> None:
    """Remove what killed processes left half-written, if nobody has touched it for a day.

    Another process, perhaps of another machine, may be writing there at this moment.
    """
    for left in parent.glob(f"{STAGING_PREFIX}*"):
        if time.time() - left.stat().st_mtime > STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def _swap_in(staging: Path, target: Path) -> None:
    retired = None
    if target.exists():
        retired = target.with_name(f"{STAGING_PREFIX}old-{uuid.uuid4().hex[:8]}")
        target.rename(retired)
    try:
        staging.rename(target)
    except BaseException:
        if retired is not None:
            retired.rename(target)
        raise
    sync_folder(target.parent)
    if retired is not None:
        # What can't be removed stays under a staging name; the new folder is in place.
        shutil.rmtree(retired, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, where the system knows how."""
    if os.name != "posix":
        return
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
