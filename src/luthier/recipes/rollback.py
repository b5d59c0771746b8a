"""Go back to the last good checkpoint after numbers went wrong, and forget what came after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from luthier.checkpoints.listing import inspect_checkpoints, remove_checkpoint
from luthier.engine.guards import DivergedError, Event


def go_back(folder: Path, diverged: DivergedError, record: Callable[[Event], None]) -> Path:
    """Return the checkpoint to go on from, and remove those that were written after it.

    The step before the first that went wrong made the update that led there: the checkpoint is one
    from before that update, where there is one.

    Args:
        folder: The run's folder.
        diverged: What went wrong.
        record: Told what is done.

    Raises:
        DivergedError: The same, where there is no checkpoint to go back to.
    """
    good = [found for found in inspect_checkpoints(folder) if found.problem is None]
    early = [found for found in good if found.step < diverged.first_step - 1]
    usable = early or [found for found in good if found.step < diverged.first_step]
    if not usable:
        raise diverged
    target = usable[-1]
    steps = ", ".join(map(str, diverged.pass_over))
    what = f"going back to {target.path.name}; the rows of steps {steps} will be passed over"
    record(Event("rollback", diverged.first_step, what))
    # A run that is killed now and goes on later must not begin with what went wrong.
    for found in good[good.index(target) + 1 :]:
        remove_checkpoint(found.path)
    return target.path
