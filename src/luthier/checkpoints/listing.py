"""The checkpoints of a run folder: which there are, which is the newest, which the best.

All is found through names and manifests: by step, never by file time. Nothing here loads torch.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luthier.checkpoints.manifest import read_manifest, unknown_files, verify
from luthier.core.errors import RunError
from luthier.core.files import STAGING_PREFIX, sync_folder

FOLDER = "checkpoints"
MODEL = "model"
BY_NAME = ("latest", "best")
"""What `find_by_name` finds."""
DOOMED_PREFIX = f"{STAGING_PREFIX}doomed-"
"""Folders with this prefix were checkpoints, and are being removed."""

_NAME = re.compile(r"step-(\d+)(?:-part-(\d+))?")
_STAGED_NAME = re.compile(rf"{re.escape(STAGING_PREFIX)}(step-\d+(?:-part-\d+)?)-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """A checkpoint whose every file was looked at.

    Attributes:
        step: Steps that are done.
        part: Micro-batches of the next step that are done; 0 between two steps.
        written: When it was sealed, as ISO 8601 in UTC; None where its manifest is damaged.
        num_bytes: Of the files as they lie there.
        eval_loss: None where no evaluation was due.
        problem: What is damaged; None where it verifies.
        unknown_files: Files that its manifest does not know.
    """

    path: Path
    step: int
    part: int
    written: str | None
    num_bytes: int
    eval_loss: float | None
    problem: str | None
    unknown_files: tuple[str, ...] = ()


def checkpoint_name(step: int, part: int = 0) -> str:
    """Return the folder name of a checkpoint.

    Args:
        step: Steps that are done.
        part: Micro-batches of the next step that are done; 0 between two steps.
    """
    return f"step-{step:06d}" + (f"-part-{part:04d}" if part else "")


def list_checkpoints(run_folder: Path) -> list[Path]:
    """Return the sealed checkpoints of a run, by step, oldest first. Contents are not verified."""
    return [path for path in _step_folders(run_folder) if _is_sealed(path)]


def best_checkpoint(found: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest validation loss, if any was evaluated."""
    ranked = _by_loss(found)
    return ranked[0] if ranked else None


def newest_good(run_folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint whose every file verifies, and what is wrong with newer ones."""
    return _first_good(_step_folders(run_folder)[::-1])


def find_by_name(
    run_folder: Path, name: Literal["latest", "best"]
) -> tuple[Path | None, list[str]]:
    """Return the newest or the best checkpoint whose every file verifies.

    Args:
        run_folder: A run's output folder.
        name: `latest`: of the highest step. `best`: of the lowest validation loss.

    Returns:
        The checkpoint, or None; and what is wrong with those that would have come before it.
    """
    if name == "latest":
        return newest_good(run_folder)
    return _first_good(_by_loss(list_checkpoints(run_folder)))


def inspect_checkpoints(run_folder: Path) -> list[FoundCheckpoint]:
    """Verify every checkpoint of a run, the damaged ones included; oldest first."""
    return [_inspect(path) for path in _step_folders(run_folder)]


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint. A kill in the middle leaves no folder that looks like one.

    Raises:
        RunError: It can't be removed.
    """
    doomed = folder.with_name(f"{DOOMED_PREFIX}{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise RunError(
            f"an old checkpoint can't be removed: {error.strerror or error}",
            where=str(folder),
            mend="Mend its permissions, and go on with --resume_from_checkpoint.",
        ) from error


def remove_staging(run_folder: Path) -> None:
    """Clear away what a killed run left unfinished.

    A folder that was complete, and only not renamed yet, becomes the checkpoint that it is: the
    run may have been killed in between taking an older one of the same step away and this.

    Raises:
        OSError: The folder can't be changed.
    """
    for path in sorted((run_folder / FOLDER).glob(f"{STAGING_PREFIX}*")):
        staged = _STAGED_NAME.fullmatch(path.name)
        target = path.with_name(staged.group(1)) if staged else None
        if target is not None and not target.exists() and _verifies(path):
            path.rename(target)
            sync_folder(target.parent)
        else:
            shutil.rmtree(path)


def _step_folders(run_folder: Path) -> list[Path]:
    # By the numbers, not the name: step-1000000 comes after step-999999.
    found = [
        (_numbers(path), path)
        for path in (run_folder / FOLDER).glob("step-*")
        if _NAME.fullmatch(path.name) and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def _numbers(path: Path) -> tuple[int, int]:
    parsed = _NAME.fullmatch(path.name)
    assert parsed is not None, path
    return int(parsed.group(1)), int(parsed.group(2) or 0)


def _by_loss(found: list[Path]) -> list[Path]:
    losses: list[tuple[float, tuple[int, int], Path]] = []
    for path in found:
        loss = _checked(path, read_manifest).get("metrics", {}).get("eval_loss")
        if loss is not None:
            losses.append((loss, _numbers(path), path))
    return [path for *_, path in sorted(losses)]


def _first_good(candidates: list[Path]) -> tuple[Path | None, list[str]]:
    problems: list[str] = []
    for path in candidates:
        try:
            _checked(path, verify)
            return path, problems
        except RunError as error:
            problems.append(f"{path.name}: {error.problem}")
    return None, problems


def _inspect(path: Path) -> FoundCheckpoint:
    step, part = _numbers(path)
    manifest: dict[str, Any] = {}
    problem = None
    try:
        manifest = _checked(path, read_manifest)
        verify(path)
    except RunError as error:
        problem = error.problem
    return FoundCheckpoint(
        path=path,
        step=step,
        part=part,
        written=manifest.get("written"),
        num_bytes=sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()),
        eval_loss=manifest.get("metrics", {}).get("eval_loss"),
        problem=problem,
        unknown_files=tuple(unknown_files(path, manifest)) if manifest else (),
    )


def _checked(path: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    manifest = read(path)
    sealed_as = manifest.get("step"), manifest.get("part", 0)
    if sealed_as != _numbers(path):
        raise RunError(
            f"its manifest is that of step {sealed_as[0]}, part {sealed_as[1]}",
            where=str(path),
            mend="Give the folder its name back.",
        )
    return manifest


def _is_sealed(folder: Path) -> bool:
    try:
        _checked(folder, read_manifest)
    except RunError:
        return False  # Unfinished or damaged: it is no checkpoint. `newest_good` says so.
    return True


def _verifies(folder: Path) -> bool:
    try:
        verify(folder)
    except RunError:
        return False
    return True
