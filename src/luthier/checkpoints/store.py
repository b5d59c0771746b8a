"""The checkpoints of one run: write, find, load, retain.

A checkpoint is written to a staging folder, sealed by a manifest, flushed and renamed. `newest`
and `best` are found through the manifests, by step, never by file time.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from luthier.checkpoints.manifest import read_manifest, seal, verify
from luthier.checkpoints.state import load_optimizer, load_random, save_optimizer, save_random
from luthier.contracts.training import BatchSource, Progress, Resumable
from luthier.core.errors import RunError
from luthier.core.files import STAGING_PREFIX, staged_folder, write_json
from luthier.core.units import format_bytes

FOLDER = "checkpoints"
MODEL = "model"
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class RunState:
    """The parts of a run whose state a checkpoint holds, beside the model.

    Attributes:
        fingerprint: Hashes of the settings and data that the run's mathematics depend on.
        micro_batches: The size that was found to fit the memory, where there is one: a run that
            cuts its steps in another way would differ in the last bits.
    """

    optimizer: torch.optim.Optimizer
    batches: BatchSource
    scaler: torch.amp.GradScaler | None
    fingerprint: Mapping[str, str]
    micro_batches: Resumable | None = None


class CheckpointStore:
    """Writes the checkpoints of a run; implements `CheckpointSink`."""

    def __init__(
        self,
        run_folder: Path,
        state: RunState,
        write_model: Callable[[Path], None],
        save_total_limit: int | None,
    ) -> None:
        """Remember what to write.

        Args:
            run_folder: The run's output folder.
            state: What is saved beside the model.
            write_model: Writes model or adapter so that transformers or peft open the folder.
            save_total_limit: How many checkpoints are kept; None for all.
        """
        self._folder = run_folder / FOLDER
        self._state = state
        self._write_model = write_model
        self._limit = save_total_limit

    def save(self, progress: Progress, metrics: Mapping[str, float]) -> str:
        """Write and seal a checkpoint, then remove those that the limit does not keep.

        Raises:
            RunError: The disk is full or can't be written; earlier checkpoints are as they were.
        """
        target = self._folder / f"step-{progress.step:06d}"
        try:
            with staged_folder(target) as staging:
                self._write_model(staging / MODEL)
                save_optimizer(self._state.optimizer, staging)
                save_random(staging)
                scaler = self._state.scaler.state_dict() if self._state.scaler else None
                sizes = self._state.micro_batches
                write_json(
                    staging / "state.json",
                    {
                        "progress": asdict(progress),
                        "batches": self._state.batches.get_state(),
                        "scaler": scaler,
                        "micro_batches": sizes.get_state() if sizes else None,
                    },
                )
                facts = {"step": progress.step, "metrics": _finite(metrics)}
                seal(staging, facts | {"fingerprint": dict(self._state.fingerprint)})
            self._retain(target)
        except (OSError, SafetensorError) as error:
            raise _explain(error, self._folder) from error
        return str(target)

    def load(self, folder: Path, progress: Progress) -> None:
        """Bring optimiser, batches, sizes, scaler, random generators and progress to a checkpoint.

        Args:
            folder: A verified checkpoint; its model is loaded by the caller.
            progress: Changed in place; `num_steps` stays as it is.
        """
        saved = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        load_optimizer(self._state.optimizer, folder)
        load_random(folder)
        self._state.batches.set_state(saved["batches"])
        if self._state.scaler is not None and saved["scaler"] is not None:
            self._state.scaler.load_state_dict(saved["scaler"])
        if self._state.micro_batches is not None and saved.get("micro_batches") is not None:
            self._state.micro_batches.set_state(saved["micro_batches"])
        for name, value in saved["progress"].items():
            if name != "num_steps":
                setattr(progress, name, value)

    def _retain(self, written: Path) -> None:
        if self._limit is None:
            return
        # The newest is the one just written. Steps after it are of an earlier try, from before
        # the run went back to an older checkpoint.
        found = [path for path in list_checkpoints(self._folder.parent) if path != written]
        found.append(written)
        keep = set(found[-self._limit :])
        best = best_checkpoint(found)
        if best is not None and best not in keep:
            keep.add(best)
            if self._limit > 1:
                # The best takes one of the places; the newest always keeps its own.
                keep.discard(found[-self._limit])
        for folder in found:
            if folder not in keep:
                _remove(folder)


def list_checkpoints(run_folder: Path) -> list[Path]:
    """Return the sealed checkpoints of a run, by step, oldest first. Contents are not verified."""
    return [path for path in _step_folders(run_folder) if _is_sealed(path)]


def best_checkpoint(found: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest validation loss, if any was evaluated."""
    losses: list[tuple[float, Path]] = []
    for path in found:
        loss = read_manifest(path)["metrics"].get("eval_loss")
        if loss is not None:
            losses.append((loss, path))
    return min(losses)[1] if losses else None


def newest_good(run_folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint whose every file verifies, and what is wrong with newer ones."""
    problems: list[str] = []
    for path in reversed(_step_folders(run_folder)):
        try:
            verify(path)
            return path, problems
        except RunError as error:
            problems.append(f"{path.name}: {error.problem}")
    return None, problems


def _step_folders(run_folder: Path) -> list[Path]:
    # By the number, not the name: step-1000000 comes after step-999999.
    found: list[tuple[int, Path]] = []
    for path in (run_folder / FOLDER).glob("step-*"):
        if (step := _STEP.fullmatch(path.name)) and path.is_dir():
            found.append((int(step.group(1)), path))
    return [path for _, path in sorted(found)]


def _is_sealed(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except RunError:
        return False  # Unfinished or damaged: it is no checkpoint. `newest_good` says so.
    return True


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has neither NaN nor infinity, and a loss that is no number is not the best one.
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def remove_staging(run_folder: Path) -> None:
    """Remove what a killed run left unfinished."""
    for path in (run_folder / FOLDER).glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(path)


def _remove(folder: Path) -> None:
    # Renamed first: a kill in the middle leaves no folder that looks like a checkpoint.
    doomed = folder.with_name(f"{STAGING_PREFIX}{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _explain(error: Exception, folder: Path) -> RunError:
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    reason = getattr(error, "strerror", None) or error
    return RunError(
        f"the checkpoint could not be written: {reason} "
        f"({format_bytes(shutil.disk_usage(present).free)} free)",
        where=str(folder),
        mend="Make room and go on with --resume_from_checkpoint: earlier checkpoints are intact.",
    )
