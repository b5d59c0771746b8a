"""A lock on a folder: two processes never write to it at once.

The system itself lets go of the lock of a process that dies, however it dies. What the lock file
says (who, since when) is for messages alone; found without a lock, it tells of a process that died.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from luthier.core.errors import RunError

LOCK = ".luthier-lock"

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_TRIES = 3
_BETWEEN_TRIES_S = 0.02
_held: set[int] = set()


@contextmanager
def locked_folder(folder: Path, say: Callable[[str], None]) -> Generator[None]:
    """Hold the lock of a folder.

    Args:
        folder: Is there, and can be written to.
        say: Told when a dead process is found to have held the lock, and where there are no locks.

    Raises:
        RunError: Another process holds it.
    """
    path = folder / LOCK
    descriptor = _open(path, say)
    try:
        _note_holder(descriptor)
        yield
    finally:
        # The file goes while it is locked, so that nobody else's is removed.
        path.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a folder; nothing is written.

    Where the file system has no locks, or the lock file can't be opened, the file itself counts.
    """
    path = folder / LOCK
    try:
        # Some file systems lock only what is open for writing.
        descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        _take(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # This lets go of the lock, too.
    return False


def lock_holder(folder: Path) -> str:
    """Return what the lock file of a folder says of who holds it, or held it."""
    return _holder(folder / LOCK)


def _open(path: Path, say: Callable[[str], None]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take_patiently(descriptor)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                say(f"{path.parent}: this file system has no locks; start no second run here")
                return descriptor
            os.close(descriptor)
            raise RunError(
                f"another process is writing here: {_holder(path)}",
                where=str(path.parent),
                mend="Wait until it ends, stop it, or choose another --output_dir.",
            ) from None
        if _is_still(descriptor, path):
            break
        os.close(descriptor)  # Its last holder has just removed it.
    # A process that is forked off would hold the lock longer than this one lives.
    _held.add(descriptor)
    if os.fstat(descriptor).st_size:
        say(f"The process that trained here died ({_holder(path)}): its lock is taken over")
    return descriptor


def _take_patiently(descriptor: int) -> None:
    # Whoever asks `is_locked` about a dead process's lock holds it for a moment.
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BlockingIOError, PermissionError):
            return _take(descriptor)
        time.sleep(_BETWEEN_TRIES_S)
    return _take(descriptor)


def _take(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _note_holder(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "machine": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode())


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['machine']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it left no name"  # Written a moment later, or cut off; the lock is what counts.


def _close_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
