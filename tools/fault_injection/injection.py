"""Faults that a process does to itself at an exact point: before a file operation, or at a call.

Nothing of luthier is replaced. Python's audit hooks and profiler say where the program is; the
faults are the system's own: signals and limits.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

# Events with a file that is changed, and the place of its dir_fd among the arguments.
_CHANGES = {
    "os.link": 2,
    "os.mkdir": 2,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.truncate": None,
    "shutil.rmtree": 1,
}
_WRITING = frozenset("wax+")


def watch_files(folders: Sequence[str], trace: str, kill_at: int | None) -> None:
    """Write down every operation that changes one of the folders, and die right before one.

    Opening a file or folder by its descriptor counts too: that is how a flush to the disk begins.

    Args:
        folders: Absolute, without links.
        trace: The file that gets a line an operation, before it is done: time, event, path.
        kill_at: Number of the operation, from 1, that never comes to be: SIGKILL.
    """
    descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    roots = tuple(folder + os.sep for folder in folders)
    owner, lock, number = os.getpid(), threading.Lock(), 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal number
        path = _changed_path(event, args)
        if path is None or not (path + os.sep).startswith(roots) or os.getpid() != owner:
            return
        with lock:
            number += 1
            # A fault that lets no file grow holds for this one too.
            with suppress(OSError):
                os.write(descriptor, f"{time.perf_counter()} {event} {path}\n".encode())
            if number == kill_at:
                os.kill(owner, signal.SIGKILL)

    sys.addaudithook(hook)


def _changed_path(event: str, args: tuple[Any, ...]) -> str | None:
    """Return the absolute path of what an audit event changes; None if it changes nothing."""
    if event == "open":
        path, mode, _flags = args
        if isinstance(path, int) or not (mode is None or _WRITING & set(mode)):
            return None
        return os.path.normpath(Path.cwd() / os.fsdecode(path))
    if event not in _CHANGES or isinstance(args[0], int):
        return None
    place = _CHANGES[event]
    folder = args[place] if place is not None else None
    is_given = isinstance(folder, int) and folder >= 0
    parent = Path(f"/proc/self/fd/{folder}").readlink() if is_given else Path.cwd()
    return os.path.normpath(parent / os.fsdecode(args[0]))


def watch_calls(faults: Sequence[Mapping[str, Any]]) -> None:
    """Do faults at calls of functions.

    Args:
        faults: Each with `function` (the qualified name), `call` (the number of the call, from 1)
            and `do`: a signal's name, `fsize=BYTES` (no file may grow longer), or `worker=SIGNAL`
            (to the first process that this one has started).
    """
    owner, calls = os.getpid(), Counter[str]()
    names = {fault["function"] for fault in faults}

    def hook(frame: FrameType, event: str, _arg: object) -> None:
        name = frame.f_code.co_qualname
        if event != "call" or name not in names or os.getpid() != owner:
            return
        calls[name] += 1
        for fault in faults:
            if fault["function"] == name and fault["call"] == calls[name]:
                _do(fault["do"])

    threading.setprofile(hook)
    sys.setprofile(hook)


def _do(what: str) -> None:
    kind, _, value = what.rpartition("=")
    if kind == "fsize":
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), hard))
        return
    pid = os.getpid()
    if kind == "worker":
        pid = min(child.pid or pid for child in multiprocessing.active_children())
    os.kill(pid, signal.Signals[value])
