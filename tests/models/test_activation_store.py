"""Bytes under keys: in memory, on disk, beyond both; and a disk that fails."""

from __future__ import annotations

import errno
import gc
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.core.errors import RunError
from luthier.models.activation_store import ActivationStore


def row(number: int, size: int = 10) -> Any:
    return np.full(size, number, np.uint8)


def read(store: ActivationStore, key: bytes, size: int = 10) -> list[int]:
    into = np.zeros(size, np.uint8)
    store.read(key, into)
    return into.tolist()


def test_rows_fill_memory_then_disk_and_the_rest_is_not_kept(tmp_path: Path):
    said: list[str] = []
    store = ActivationStore(25, 20, tmp_path, said.append)
    kept = [store.put(bytes([n]), row(n)) for n in range(6)]
    assert kept == [True, True, True, True, False, False]
    assert (store.memory_bytes, store.disk_bytes, len(store)) == (20, 20, 4)
    assert [n for n in range(6) if bytes([n]) in store] == [0, 1, 2, 3]
    # In any order, for a batch asks as it likes.
    for n in (3, 0, 2, 1):
        assert read(store, bytes([n])) == [n] * 10
    assert said == []


def test_a_small_row_goes_where_a_large_one_found_no_room(tmp_path: Path):
    store = ActivationStore(10, 0, tmp_path, print)
    assert not store.put(b"large", row(1, 11))
    assert store.put(b"small", row(2))


def test_what_is_kept_is_a_copy_and_stays_the_first(tmp_path: Path):
    for limits in ((10, 0), (0, 10)):
        store = ActivationStore(*limits, tmp_path, print)
        values = row(1)
        assert store.put(b"key", values)
        values[:] = 9
        assert store.put(b"key", row(2))
        assert read(store, b"key") == [1] * 10
        assert store.memory_bytes + store.disk_bytes == 10


def test_an_unknown_key(tmp_path: Path):
    with pytest.raises(KeyError):
        read(ActivationStore(10, 10, tmp_path, print), b"none")


@pytest.mark.skipif(os.name == "nt", reason="Windows shows a temporary file until it is closed")
def test_the_file_has_no_name_and_is_closed_with_the_store(tmp_path: Path):
    store = ActivationStore(0, 10, tmp_path, print)
    store.put(b"key", row(1))
    file = store._file
    assert file is not None
    assert not file.closed
    assert list(tmp_path.iterdir()) == []
    del store
    gc.collect()
    assert file.closed


class FullAfter:
    """A file that takes so many bytes, a part of a write included, and then none."""

    def __init__(self, room: int) -> None:
        self.file = io.BytesIO()
        self.room = room
        self.closed = False

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def readinto(self, data: Any) -> int:
        # A read may give less than asked for.
        return self.file.readinto(data[:7])

    def close(self) -> None:
        self.closed = True
        self.file.close()


def test_a_full_disk_is_said_once_and_gives_back_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files: list[FullAfter] = []

    def make(**_arguments: Any) -> FullAfter:
        files.append(FullAfter(25))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    said: list[str] = []
    store = ActivationStore(10, 1000, tmp_path, said.append)
    assert [store.put(bytes([n]), row(n)) for n in range(3)] == [True, True, True]
    assert read(store, bytes([2])) == [2] * 10
    assert not store.put(bytes([3]), row(3))
    assert files[0].closed
    # What is in memory is still there.
    assert [bytes([n]) in store for n in range(4)] == [True, False, False, False]
    assert store.disk_bytes == 0
    assert not store.put(bytes([5]), row(5))
    assert len(files) == len(said) == 1
    assert said[0] == (
        "freeze_cache: the disk can't take more activations (No space left on device): "
        "the 20 B there are given up, and those rows are computed each time"
    )


def test_a_folder_that_is_gone_is_said_and_training_goes_on(tmp_path: Path):
    said: list[str] = []
    store = ActivationStore(0, 100, tmp_path / "gone", said.append)
    assert not store.put(b"key", row(1))
    assert not store.put(b"other", row(2))
    assert len(said) == 1
    assert "No such file or directory" in said[0]


def test_a_file_that_was_cut_is_no_result(tmp_path: Path):
    store = ActivationStore(0, 100, tmp_path, print)
    store.put(b"key", row(1))
    assert store._file is not None
    store._file.truncate(4)
    with pytest.raises(RunError, match=r"shorter than what was written(.|\n)*--freeze_cache false"):
        read(store, b"key")


def test_a_disk_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = ActivationStore(0, 100, tmp_path, print)
    store.put(b"key", row(1))

    class Broken:
        def seek(self, _place: int) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "_file", Broken())
    with pytest.raises(RunError, match="can't be read back: Input/output error"):
        read(store, b"key")
