"""Turn Ctrl-C and SIGTERM into a request that the loop honours after the step under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """A context in which the first signal asks to stop and the second stops at once.

    Implements `StopRequest`. Outside the main thread, where Python delivers no signals, it is
    inert.
    """

    def __init__(self, on_request: Callable[[str], None]) -> None:
        """Remember whom to tell.

        Args:
            on_request: Called once with the signal's name, from the handler.
        """
        self.requested = False
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
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._on_request(signal.Signals(number).name)
