"""Turn signals into requests that the loop honours at the next safe point.

SIGINT (Ctrl-C) and SIGTERM: checkpoint after the micro-batch under way, then stop. SIGUSR1:
checkpoint after the step under way, and go on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_STOP = (signal.SIGINT, signal.SIGTERM)
_SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none.


class StopSignals:
    """A context in which the first signal asks to stop and the second stops at once.

    As long as there is nothing to lose (no micro-batch is done yet) the first one stops at once
    too.

    Implements `StopRequest`. Outside the main thread, where Python delivers no signals, it is
    inert.
    """

    def __init__(self, on_request: Callable[[str], None]) -> None:
        """Remember whom to tell.

        Args:
            on_request: Called with the signal's name, from the handler: at the first signal that
                asks to stop, and at each that asks for a checkpoint.
        """
        self.requested = False
        self.has_work = False
        self._wants_checkpoint = False
        self._on_request = on_request
        self._earlier: dict[int, Any] = {}

    def take_checkpoint_request(self) -> bool:
        """Return whether a checkpoint is wanted, and forget it."""
        wanted, self._wants_checkpoint = self._wants_checkpoint, False
        return wanted

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in _STOP:
                self._earlier[number] = signal.signal(number, self._handle_stop)
            if _SAVE is not None:
                self._earlier[_SAVE] = signal.signal(_SAVE, self._handle_save)
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

    def _handle_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested or not self.has_work:
            raise KeyboardInterrupt
        self.requested = True
        self._on_request(signal.Signals(number).name)

    def _handle_save(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._wants_checkpoint = True
        self._on_request(signal.Signals(number).name)
