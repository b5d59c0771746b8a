"""Turn Ctrl-C and SIGTERM into a request that the loop honours after the step under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """A context in which the first signal asks to stop and the second stops at once.

    As long as there is nothing to lose (no step was taken yet) the first one stops at once too.

    Implements `StopRequest`. Outside the main thread, where Python delivers no signals, it is
    inert.
    """

    def __init__(
        self, on_request: Callable[[str], None], has_work: Callable[[], bool] = lambda: True
    ) -> None:
        """Remember whom to tell.

        Args:
            on_request: Called once with the signal's name, from the handler.
            has_work: Whether a step was taken that a checkpoint would save.
        """
        self.requested = False
        self._has_work = has_work
        self._on_request = on_request
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put back what was installed before."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested or not self._has_work():
            raise KeyboardInterrupt
        self.requested = True
        self._on_request(signal.Signals(number).name)
