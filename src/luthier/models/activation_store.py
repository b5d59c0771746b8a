"""Rows of numbers under a key: in memory up to a limit, then on disk up to a limit.

In: bytes. Out: the same bytes, or nothing where there was no room. It holds what can be computed
again, so it never stops a run: a full disk is said once, and what stood there is given up, that the
next checkpoint finds room. The file has no name (or loses it when the process ends, where a system
knows no files without one): nothing is left behind by a killed run, and nothing old is ever read.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from luthier.core.errors import RunError
from luthier.core.units import format_bytes

Bytes = npt.NDArray[np.uint8]


class ActivationStore:
    """Keeps each key's bytes once. For one process and one thread."""

    def __init__(
        self, memory_bytes: int, disk_bytes: int, folder: Path, say: Callable[[str], None]
    ) -> None:
        """Set the limits; nothing is allocated yet.

        Args:
            memory_bytes: How much may be kept in memory.
            disk_bytes: How much may be kept on disk, once memory is full.
            folder: Where the file is made. It must exist when the first row goes to disk.
            say: Told once if the disk can't be written.
        """
        self.memory_limit, self.disk_limit = memory_bytes, disk_bytes
        self._folder = folder
        self._say = say
        self._in_memory: dict[bytes, Bytes] = {}
        self._on_disk: dict[bytes, int] = {}
        self._file: FileIO | None = None
        self.memory_bytes = 0
        self.disk_bytes = 0

    def __contains__(self, key: bytes) -> bool:
        """Whether a key's bytes are kept."""
        return key in self._in_memory or key in self._on_disk

    def __len__(self) -> int:
        """Return how many keys are kept."""
        return len(self._in_memory) + len(self._on_disk)

    def put(self, key: bytes, values: Bytes) -> bool:
        """Keep a copy of a key's bytes, if there is room.

        Args:
            key: The key; one that is kept already stays as it is.
            values: One-dimensional or contiguous.

        Returns:
            Whether the key is kept now.
        """
        if key in self:
            return True
        size = values.nbytes
        if self.memory_bytes + size <= self.memory_limit:
            self._in_memory[key] = values.copy()
            self.memory_bytes += size
            return True
        if self.disk_bytes + size <= self.disk_limit:
            return self._write(key, values)
        return False

    def read(self, key: bytes, into: Bytes) -> None:
        """Copy a key's bytes.

        Args:
            key: A key that is kept.
            into: Takes the bytes; contiguous, of their size.

        Raises:
            KeyError: The key isn't kept.
            RunError: The file gives fewer bytes than were written, or can't be read.
        """
        kept = self._in_memory.get(key)
        if kept is not None:
            np.copyto(into, kept)
            return
        place = self._on_disk[key]
        assert self._file is not None, "a key on disk without a file"
        target = into.data.cast("B")
        done, cause = 0, "the file is shorter than what was written"
        try:
            self._file.seek(place)
            while done < len(target) and (count := self._file.readinto(target[done:])):
                done += count
        except OSError as error:
            cause = error.strerror or str(error)
        if done < len(target):
            raise RunError(
                f"kept activations can't be read back: {cause}",
                where=str(self._folder),
                mend="Go on from the newest checkpoint with --freeze_cache false, "
                "or with another disk as output_dir.",
            )

    def _write(self, key: bytes, values: Bytes) -> bool:
        try:
            if self._file is None:
                # It stays open as long as the store lives.
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            self._file.seek(self.disk_bytes)
            rest = values.data.cast("B")
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._give_up_disk(error)
            return False
        self._on_disk[key] = self.disk_bytes
        self.disk_bytes += values.nbytes
        return True

    def _give_up_disk(self, error: OSError) -> None:
        freed = format_bytes(self.disk_bytes)
        self._say(
            f"freeze_cache: the disk can't take more activations ({error.strerror or error}): "
            f"the {freed} there are given up, and those rows are computed each time"
        )
        self._on_disk.clear()
        self.disk_bytes = self.disk_limit = 0
        if self._file is not None:
            self._file.close()
            self._file = None
