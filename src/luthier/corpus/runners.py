"""Who does the work: this process, a pool of processes, or Ray.

In: a function and items, each a batch of a corpus on disk. Out: one result for each item, in the
order of the items, whoever does the work; so the outcome is the same for any number of workers.
Rows never travel: a worker reads a part, writes a part, and hands back counts or small sketches.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar

from luthier.core.errors import LuthierError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items that are handed out for each worker, so that none waits for the parent."""


class Runner(Protocol):
    """Maps a function over items, in order."""

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the result of each item in the order of the items.

        Args:
            work: A function that can be pickled, and so can what it is given and returns.
            items: What it is called with, one at a time.
        """
        ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """Does the work here, one item after the other."""

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the result of each item."""
        return map(work, items)


@dataclass(frozen=True, slots=True)
class Processes:
    """Does the work in processes of this machine.

    Attributes:
        num_workers: How many.
    """

    num_workers: int

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the result of each item; only as many are under way as keep the workers busy.

        Raises:
            LuthierError: A worker died, most likely for want of memory.
        """
        with self._pool(work, len(items)) as pool:
            waiting: deque[Future[Result]] = deque()
            for item in items:
                waiting.append(pool.submit(_work_on, item))
                if len(waiting) >= _AHEAD * self.num_workers:
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()

    @contextmanager
    def _pool(self, work: Callable[[Any], Any], num_items: int) -> Generator[ProcessPoolExecutor]:
        # Not by fork: libraries with threads of their own may run in this process by now.
        context = get_context("forkserver")
        context.set_forkserver_preload(["luthier.corpus.pipeline"])
        pool = ProcessPoolExecutor(
            min(self.num_workers, max(num_items, 1)), context, _begin, (work,)
        )
        try:
            yield pool
        except BrokenProcessPool as error:
            raise LuthierError(
                "a worker process died, most likely because the machine is out of memory",
                mend="Give fewer workers (preprocessing_num_workers); what is finished is kept.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def default_runner(num_workers: int | None) -> Runner:
    """Return the runner for a number of workers.

    Args:
        num_workers: Processes; None takes one for each core that this process may use.
    """
    wanted = num_workers or len(os.sched_getaffinity(0))
    return Processes(wanted) if wanted > 1 else InProcess()


_work: Callable[[Any], Any] | None = None
"""In a worker: what it was started for. A step may carry an index of megabytes: it comes once."""


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    # Ctrl-C reaches the whole group of processes, and is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = work


def _work_on(item: Any) -> Any:
    assert _work is not None, "a worker is started with its work"
    return _work(item)
