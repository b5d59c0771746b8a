"""A thread that does one thing after another, so that nobody waits for a network."""

from __future__ import annotations

from collections.abc import Callable
from queue import Full, Queue
from threading import Thread

MAX_WAITING = 1000
"""Calls that may wait. With more, the thread hangs or is hopelessly slow."""


class Worker:
    """Does calls in their order in a thread of its own. After one that raised it does none."""

    def __init__(self, name: str, max_waiting: int = MAX_WAITING) -> None:
        """Start the thread.

        Args:
            name: Of the thread.
            max_waiting: Calls that may wait.
        """
        self.error: Exception | None = None
        self._is_ending = False
        self._calls: Queue[Callable[[], None] | None] = Queue(max_waiting)
        # A daemon: what still hangs when the process ends does not keep it alive.
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], None]) -> bool:
        """Have something done, and return at once: False where too much is waiting already."""
        return self._put(call)

    def end(self) -> bool:
        """Let the thread end once everything is done: False where too much is waiting already."""
        self._is_ending = self._is_ending or self._put(None)
        return self._is_ending

    def wait(self, timeout_s: float) -> bool:
        """Wait for the thread's end, and say whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, call: Callable[[], None] | None) -> bool:
        try:
            self._calls.put_nowait(call)
        except Full:
            return False
        return True

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self.error is None:
                try:
                    call()
                # A tracker may raise anything, and must not end a training run.
                except Exception as error:
                    self.error = error
