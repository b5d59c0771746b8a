"""The checkpoints of one run: take, write, seal, retain, load.

A checkpoint is written to a staging folder, sealed by a manifest, flushed and renamed. Where that
happens in the background, training waits for a copy in memory only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from luthier.checkpoints.background import Background
from luthier.checkpoints.listing import (
    FOLDER,
    best_checkpoint,
    list_checkpoints,
    remove_checkpoint,
)
from luthier.checkpoints.room import RETRY_S, Room
from luthier.checkpoints.settings import CheckpointSettings
from luthier.checkpoints.snapshot import (
    RunState,
    Snapshot,
    TakeModel,
    load_snapshot,
    take_snapshot,
)
from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, StopRequest
from luthier.core.files import staged_folder

_POLL_S = 0.2

Item = TypeVar("Item")


class CheckpointStore:
    """Writes the checkpoints of a run; implements `CheckpointSink`."""

    def __init__(
        self,
        run_folder: Path,
        state: RunState,
        take_model: TakeModel,
        settings: CheckpointSettings,
        *,
        tell: Callable[[Notice], None] = lambda notice: None,
        stop: StopRequest | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        """Remember what to write.

        Args:
            run_folder: The run's output folder.
            state: What is saved beside the model.
            take_model: Takes the model, or a copy of it, to be written.
            settings: How many are kept, where they are written, and what a full disk means.
            tell: Told that the run waits for room; always from the thread that calls this object.
            stop: Ends that waiting.
            retry_s: Seconds between two looks for room.
        """
        self._folder = run_folder / FOLDER
        self._state = state
        self._take_model = take_model
        self._settings = settings
        self._tell = tell
        self._room = Room(self._folder, settings.on_full_disk, stop, retry_s)
        self._background = Background()
        self._notices: SimpleQueue[Notice] = SimpleQueue()
        self._sealed: SimpleQueue[tuple[int, str, float]] = SimpleQueue()

    def save(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Write and seal a checkpoint, then remove those that the limit does not keep.

        With `save_in_background` it is copied, and written after this has returned; the one before
        it is waited for.

        Raises:
            RunError: The disk is full or can't be written, now or when the one before was written.
                Earlier checkpoints are as they were.
        """
        started_s = time.perf_counter()
        self.wait()
        in_background = self._settings.save_in_background
        snapshot = take_snapshot(
            self._state, progress, metrics, self._take_model, as_copy=in_background
        )
        if in_background:
            copied_s = time.perf_counter() - started_s
            self._background.start(
                lambda: self._write(snapshot, self._notices.put, lambda: copied_s)
            )
        else:
            self._write(snapshot, self._tell, lambda: time.perf_counter() - started_s)

    def sealed(self) -> Sequence[tuple[int, str, float]]:
        """Return what was sealed since this was last asked: step, path, seconds waited for it.

        Raises:
            RunError: One could not be written in the background.
        """
        self._pass_on_notices()
        if not self._background.is_busy:
            self._background.raise_error()
        return _drain(self._sealed)

    def wait(self) -> None:
        """Return once nothing is being written any more.

        Raises:
            RunError: What was being written could not be.
        """
        while self._background.is_busy:
            self._background.wait(_POLL_S)
            self._pass_on_notices()
        self._pass_on_notices()
        self._background.raise_error()

    def load(self, folder: Path, progress: Progress) -> None:
        """Bring all of the run's state but its model to a verified checkpoint.

        Args:
            folder: A verified checkpoint; its model is loaded by the caller.
            progress: Changed in place; `num_steps` stays as it is.
        """
        load_snapshot(folder, self._state, progress)

    def _write(
        self, snapshot: Snapshot, tell: Callable[[Notice], None], waited_s: Callable[[], float]
    ) -> None:
        target = self._folder / snapshot.name

        def write() -> None:
            with staged_folder(target) as staging:
                snapshot.write(staging)

        self._room.write(write, snapshot.num_bytes, tell)
        self._retain(target)
        self._sealed.put((snapshot.step, str(target), waited_s()))

    def _retain(self, written: Path) -> None:
        limit = self._settings.save_total_limit
        if limit is None:
            return
        # The newest is the one just written. Steps after it are of an earlier try, from before
        # the run went back to an older checkpoint.
        found = [path for path in list_checkpoints(self._folder.parent) if path != written]
        found.append(written)
        keep = set(found[-limit:])
        best = best_checkpoint(found)
        if best is not None and best not in keep:
            keep.add(best)
            if limit > 1:
                # The best takes one of the places; the newest always keeps its own.
                keep.discard(found[-limit])
        for folder in found:
            if folder not in keep:
                remove_checkpoint(folder)

    def _pass_on_notices(self) -> None:
        for notice in _drain(self._notices):
            self._tell(notice)


def _drain(queue: SimpleQueue[Item]) -> list[Item]:
    return [queue.get() for _ in range(queue.qsize())]
