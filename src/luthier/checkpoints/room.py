"""Room on the disk: looked for before a checkpoint is written, and waited for where that is wished.

A disk that fills up in the middle of a write is treated in the same way.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from luthier.contracts.notice import Notice
from luthier.contracts.training import StopRequest
from luthier.core.disk import NO_ROOM, free_bytes
from luthier.core.errors import RunError
from luthier.core.units import MIB, format_bytes

MARGIN_BYTES = 4 * MIB
"""For headers, tokenizer, configuration and manifest, whose sizes nobody knows beforehand."""

RETRY_S = 2.0

_RUST_CODE = re.compile(r"(?:os error|code:) (\d+)")
_MEND = "Make room and go on with --resume_from_checkpoint: earlier checkpoints are intact."


class NoRoomError(RunError):
    """The disk has no room for a checkpoint."""


@dataclass(frozen=True, slots=True)
class Room:
    """The disk that the checkpoints of a run are written to.

    Attributes:
        folder: That they lie in; it need not exist.
        on_full_disk: Whether to raise, or to try again until there is room.
        stop: Ends the waiting.
        retry_s: Seconds between two tries.
    """

    folder: Path
    on_full_disk: Literal["stop", "pause"] = "stop"
    stop: StopRequest | None = None
    retry_s: float = RETRY_S

    def write(
        self, write: Callable[[], None], num_bytes: int, tell: Callable[[Notice], None]
    ) -> None:
        """Call `write` once there is room for it.

        Args:
            write: Leaves nothing behind if it fails.
            num_bytes: About what it writes.
            tell: Told once that the run waits, and for what.

        Raises:
            NoRoomError: There is none, and nobody wants to wait.
            RunError: The folder can't be written.
        """
        needed_bytes = num_bytes + MARGIN_BYTES
        is_told = False
        while True:
            try:
                self._check(needed_bytes)
                with self._errors_explained(needed_bytes):
                    write()
                return
            except NoRoomError as error:
                if not self._may_wait():
                    raise
                if not is_told:
                    reason = f"{error.problem}; the run waits for room in {self.folder}"
                    tell(Notice("on_full_disk", self.on_full_disk, self.on_full_disk, reason))
                    is_told = True
            time.sleep(self.retry_s)

    def _may_wait(self) -> bool:
        # A process that ends waits for its threads: one that waits for room would hold it for ever.
        is_ending = not threading.main_thread().is_alive()
        is_asked_to_stop = self.stop is not None and self.stop.requested
        return self.on_full_disk == "pause" and not is_asked_to_stop and not is_ending

    def _check(self, needed_bytes: int) -> None:
        if free_bytes(self.folder) < needed_bytes:
            raise self._no_room(needed_bytes)

    @contextmanager
    def _errors_explained(self, needed_bytes: int) -> Generator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            if _error_number(error) in NO_ROOM:
                raise self._no_room(needed_bytes, f" ({reason})") from error
            raise RunError(
                f"the checkpoint could not be written: {reason} "
                f"({format_bytes(free_bytes(self.folder))} free)",
                where=str(self.folder),
                mend=_MEND,
            ) from error

    def _no_room(self, needed_bytes: int, cause: str = "") -> NoRoomError:
        needed, free = format_bytes(needed_bytes), format_bytes(free_bytes(self.folder))
        return NoRoomError(
            f"the disk has no room for the checkpoint{cause}: it needs {needed}, {free} are free",
            where=str(self.folder),
            mend=_MEND,
        )


def _error_number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors quotes the system's error as Rust prints it: `(os error 28)`, or `code: 28`.
    found = _RUST_CODE.search(str(error))
    return int(found.group(1)) if found else None
