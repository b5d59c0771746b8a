"""A disk that is full, or a folder that is closed, said plainly."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from luthier.core.errors import LuthierError
from luthier.core.units import format_bytes

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors that say: the disk, a share of it, or a file is full."""

_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})


@contextmanager
def disk_errors(root: Path, what: str, elsewhere: str, needed_bytes: int = 0) -> Generator[None]:
    """Turn the errors of a full disk or a closed folder into ones that say what to do.

    Args:
        root: The folder that is written to; it need not exist.
        what: What is written, as the subject of a sentence, for example `prepared data`.
        elsewhere: How to have it somewhere else, as the end of a sentence that begins with "set".
        needed_bytes: About how much room it takes; 0 where nobody knows.

    Raises:
        LuthierError: In place of such an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise disk_full(root, what, elsewhere, needed_bytes) from error
        if error.errno in _CLOSED:
            raise LuthierError(
                f"{what} can't be written: {error.strerror}",
                where=str(error.filename or root),
                mend=f"Set {elsewhere} that you may write to.",
            ) from error
        raise


def check_room(root: Path, what: str, elsewhere: str, needed_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        LuthierError: Fewer bytes are free than are needed.
    """
    if free_bytes(root) < needed_bytes:
        raise disk_full(root, what, elsewhere, needed_bytes)


def check_folder(folder: Path, what: str, elsewhere: str) -> None:
    """Make a folder where it is not there yet, and see that it can be written to.

    Args:
        folder: The folder.
        what: What will be written, as the subject of a sentence.
        elsewhere: As for `disk_errors`.

    Raises:
        LuthierError: It can't be made or written to.
    """
    probe = folder / f".luthier-write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise LuthierError(
            f"{what} can't be written: {error.strerror or error}",
            where=str(folder),
            mend=f"Set {elsewhere} that you may write to.",
        ) from error


def free_bytes(root: Path) -> int:
    """Return how many bytes are free where a folder lies or will lie."""
    there = root
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free


def disk_full(root: Path, what: str, elsewhere: str, needed_bytes: int) -> LuthierError:
    """Build the error for a disk without room."""
    free = format_bytes(free_bytes(root))
    needs = f" needs {format_bytes(needed_bytes)}, {free} are free"
    # What was begun is removed by now, and its room is free again.
    cleared = f" needs more than the {free} that are free"
    return LuthierError(
        f"the disk is full: {what}{needs if needed_bytes else cleared}",
        where=str(root),
        mend=f"Free some room, or set {elsewhere} on another disk.",
    )
