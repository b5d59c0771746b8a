"""One process a folder: real processes, and real kills."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.core import lock
from luthier.core.errors import RunError
from luthier.core.lock import LOCK, is_locked, lock_holder, locked_folder

HOLD = r"""
import os, sys, time
from pathlib import Path
from luthier.core.lock import locked_folder
with locked_folder(Path(sys.argv[1]), print):
    if "fork" in sys.argv and os.fork() == 0:
        os.write(1, f"child {os.getpid()}\n".encode())
        time.sleep(60)
    os.write(1, b"held\n")
    time.sleep(60)
"""


def hold(folder: Path, *how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process


def wait_for(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.split()
    raise AssertionError(f"{word} was never printed")


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        wait_for(process, "held")
        there = f"writing here: process {process.pid} on "
        with pytest.raises(RunError, match=there), locked_folder(tmp_path, print):
            raise AssertionError("two processes hold one lock")
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_word(tmp_path: Path) -> None:
    process = hold(tmp_path)
    wait_for(process, "held")
    process.send_signal(signal.SIGKILL)
    process.wait()
    said: list[str] = []
    with locked_folder(tmp_path, said.append):
        assert (tmp_path / LOCK).exists()
    (line,) = said
    assert "died" in line
    assert f"process {process.pid}" in line


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_forked_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path) -> None:
    process = hold(tmp_path, "fork")
    child = int(wait_for(process, "child")[1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        with locked_folder(tmp_path, lambda line: None):
            os.kill(child, 0)  # It is still there.
    finally:
        os.kill(child, signal.SIGKILL)


def test_nothing_stays_behind(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked_folder(tmp_path, said.append):
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
    assert said == []


def test_a_torn_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"pid": 1')
    said: list[str] = []
    with locked_folder(tmp_path, said.append):
        pass
    assert "it left no name" in said[0]


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_take", refuse)
    said: list[str] = []
    with locked_folder(tmp_path, said.append):
        pass
    assert "has no locks" in said[0]


def test_a_lock_is_seen_from_outside_as_long_as_its_process_lives(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    process = hold(tmp_path)
    try:
        wait_for(process, "held")
        assert is_locked(tmp_path)
        assert lock_holder(tmp_path).startswith(f"process {process.pid} on ")
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / LOCK).exists()
    assert not is_locked(tmp_path)
    (tmp_path / LOCK).chmod(0o444)
    assert not is_locked(tmp_path)


def test_asking_leaves_the_lock_free(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("{}")
    assert not is_locked(tmp_path)
    with locked_folder(tmp_path, lambda line: None):
        assert is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_asks_at_the_same_moment_does_not_keep_a_run_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, tries = lock._take, []

    def busy_once(descriptor: int) -> None:
        tries.append(descriptor)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        take(descriptor)

    monkeypatch.setattr(lock, "_take", busy_once)
    with locked_folder(tmp_path, print):
        assert len(tries) == 2


def test_where_there_are_no_locks_the_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_take", refuse)
    assert not is_locked(tmp_path)
    (tmp_path / LOCK).write_text("{}")
    assert is_locked(tmp_path)


def test_a_lock_that_can_not_be_opened_counts_as_held(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(LOCK)  # Around in a circle.
    assert is_locked(tmp_path)
