"""Rows in, batches out: torch's DataLoader, and its worker processes when they fail."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from luthier.batches.collate import Collate
from luthier.batches.reading import open_rows
from luthier.batches.settings import BatchSettings
from luthier.core.errors import RunError

WORKER_TIMEOUT_S = 25
"""A batch takes a worker milliseconds: one that has not come after so long will not come."""


def make_loader(
    rows: Any, batch_sampler: Iterable[list[int]], collate: Collate, settings: BatchSettings
) -> DataLoader[Any]:
    """Build torch's DataLoader over given batches of row numbers.

    Each iteration of a DataLoader draws a seed for its workers, by default from the global random
    generator: an evaluation, or going on from a checkpoint, would then change every later dropout
    mask. So the loader has a generator of its own.
    """
    sampler: Any = batch_sampler  # torch asks for a Sampler, and needs no more than an iterable.
    num_workers = settings.dataloader_num_workers
    return DataLoader(
        open_rows(rows),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
        timeout=WORKER_TIMEOUT_S if num_workers else 0,
        worker_init_fn=_share_by_name if num_workers else None,
    )


def _share_by_name(worker: int) -> None:
    # By default a batch is fetched from its worker by a call that has no time limit.
    del worker
    torch.multiprocessing.set_sharing_strategy("file_system")


def _end_workers() -> None:
    # Python waits at its end for workers that it asked to end, for ever where one hangs.
    workers = multiprocessing.active_children()
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch takes each death for a failure
    for worker in workers:
        worker.kill()


atexit.register(_end_workers)


@contextmanager
def worker_errors() -> Generator[None]:
    """Turn the failure of a DataLoader's worker process into an error that says what to do.

    Where a worker dies, torch raises from a signal handler, anywhere in the main process: put the
    whole of a training into this context.

    Raises:
        RunError: A worker died, or has not answered for `WORKER_TIMEOUT_S`.
    """
    try:
        yield
    except RuntimeError as error:
        what = str(error).partition("\n")[0]
        if not what.startswith(("DataLoader worker", "DataLoader timed out")):
            raise
        is_hung = "timed out" in what
        problem = "hangs" if is_hung else "died"
        raise RunError(
            f"a worker process that builds batches {problem}: {what}",
            mend="Go on with --resume_from_checkpoint. If it comes again, it may be short of "
            "memory: lower dataloader_num_workers (0 builds batches in the main process).",
        ) from error
