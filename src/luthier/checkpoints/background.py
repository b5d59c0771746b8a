"""One job at a time, in a thread beside the one that trains."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs a job beside the caller, and hands what it raised to the caller.

    A process that ends waits for the job: the thread is no daemon.
    """

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], None]) -> None:
        """Begin a job; the one before it must have ended."""
        assert not self.is_busy, "one job at a time"
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint-writer")
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Return once the job has ended, or the time is over."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def raise_error(self) -> None:
        """Raise what a job that has ended raised, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            # Whatever it is, it belongs to whoever asked for the job.
            self._error = error
