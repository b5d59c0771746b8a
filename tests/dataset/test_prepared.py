from __future__ import annotations

import errno
import json
from collections import namedtuple
from pathlib import Path

import datasets
import numpy as np
import pytest

from luthier.contracts.conversation import Origin, Rejection
from luthier.contracts.notice import Notice
from luthier.core.errors import LuthierError
from luthier.dataset import prepared
from luthier.dataset.prepared import (
    MANIFEST,
    disk_errors,
    prepared_root,
    read_prepared,
    row_lengths,
    write_prepared,
)
from luthier.dataset.row_table import Row, to_dataset

WARNING = Notice("double_bos", "", "", "one row")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prepared" / "0123456789abcdef"


def rows(count: int):
    ids = np.arange(3, dtype=np.int32)
    return to_dataset([Row(ids, ids, None, f"f:{i}") for i in range(count)], with_weights=False)


def write(folder: Path, *, needed: int = 0, **splits: int) -> None:
    manifest = {"key": "k", "splits": dict.fromkeys(splits), "warnings": [WARNING.as_json()]}
    tables = {name: rows(count) for name, count in splits.items()}
    write_prepared(folder, tables, [Rejection(Origin("f", 1), "why", "so")], manifest, needed)


def test_what_was_written_is_read(folder):
    write(folder, train=5, val=2)
    found = read_prepared(folder, "k")
    assert found is not None
    assert (len(found.train), len(found.val or [])) == (5, 2)
    assert found.from_cache
    assert found.notices == (WARNING,)
    assert json.loads((folder / "rejected.jsonl").read_text())["reason"] == "why"
    assert {"train/data-00000-of-00001.arrow", "rejected.jsonl"} < found.manifest["files"].keys()
    write(folder, train=1)
    found = read_prepared(folder, "k")
    assert found is not None
    assert (len(found.train), found.val) == (1, None)


def test_nothing_is_read_that_is_not_whole(folder):
    assert read_prepared(folder, "k") is None
    write(folder, train=5)
    assert read_prepared(folder, "another key") is None
    arrow = folder / "train" / "data-00000-of-00001.arrow"
    whole = arrow.read_bytes()
    arrow.write_bytes(whole[:-1])
    assert read_prepared(folder, "k") is None, "cut off"
    arrow.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert read_prepared(folder, "k") is None, "a flipped bit"
    arrow.write_bytes(whole)
    assert read_prepared(folder, "k") is not None
    (folder / "train" / "state.json").unlink()
    assert read_prepared(folder, "k") is None, "a file is gone"
    (folder / MANIFEST).write_text("{")
    assert read_prepared(folder, "k") is None, "no manifest"


def test_a_full_disk_is_said_and_leaves_nothing_behind(folder, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepared, "write_rejected", full)
    with pytest.raises(
        LuthierError, match=r"the disk is full: prepared data needs 5\.0 MiB, .*free"
    ):
        write(folder, train=5, needed=5 << 20)
    assert list(folder.parent.iterdir()) == []


def test_a_disk_that_will_be_too_small_is_said_before_anything_is_written(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda _path: usage(100, 90, 10))
    with pytest.raises(LuthierError, match=r"needs 1\.0 KiB, 10 B are free\n.*prepared_dir"):
        write(folder, train=5, needed=1024)
    assert list(folder.parent.iterdir()) == []


def test_a_closed_folder_is_said(tmp_path):
    with (
        pytest.raises(LuthierError, match=r"can't be written: Read-only.*\n.*prepared_dir"),
        disk_errors(tmp_path),
    ):
        raise OSError(errno.EROFS, "Read-only file system")


def test_other_faults_of_the_system_are_not_hidden(tmp_path):
    with pytest.raises(OSError, match="Bad file descriptor"), disk_errors(tmp_path):
        raise OSError(errno.EBADF, "Bad file descriptor")


def test_what_a_killed_run_left_is_removed(folder):
    left = folder.with_name(f".staging-{folder.name}-12345678")
    other = folder.with_name(".staging-fedcba9876543210-12345678")
    left.mkdir(parents=True)
    other.mkdir()
    write(folder, train=1)
    assert not left.exists()
    assert other.exists(), "another key has its own lock"


def test_the_folder_of_prepared_data(tmp_path, monkeypatch):
    assert prepared_root(str(tmp_path)) == tmp_path
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    assert prepared_root(None) == tmp_path / "cache" / "prepared"
    monkeypatch.delenv("LUTHIER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepared_root(None) == tmp_path / ".cache" / "luthier" / "prepared"


def test_progress_bars_are_left_as_they_were(folder):
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    for is_disabled, choose in ((True, disable_progress_bars), (False, enable_progress_bars)):
        choose()
        write(folder, train=1)
        assert are_progress_bars_disabled() is is_disabled


def test_lengths_are_a_list_that_is_read_once():
    rows = datasets.Dataset.from_dict({"length": [3, 1, 2]})
    lengths = row_lengths(rows)
    assert type(lengths) is list
    assert lengths == [3, 1, 2]
