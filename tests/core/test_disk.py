from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from luthier.core.disk import check_folder, check_room, disk_errors, disk_full, free_bytes
from luthier.core.errors import LuthierError

ELSEWHERE = "corpus_dir to a folder"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_with_what_is_free(tmp_path: Path, code: int):
    with (
        pytest.raises(
            LuthierError, match=r"is full: the corpus needs more than the .* that are free"
        ) as caught,
        disk_errors(tmp_path, "the corpus", ELSEWHERE),
    ):
        raise OSError(code, os.strerror(code))
    assert caught.value.where == str(tmp_path)
    assert caught.value.mend == "Free some room, or set corpus_dir to a folder on another disk."


def test_a_closed_folder_is_named(tmp_path: Path):
    with (
        pytest.raises(LuthierError, match=r"the corpus can't be written: Permission denied"),
        disk_errors(tmp_path, "the corpus", ELSEWHERE),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))


def test_other_errors_pass(tmp_path: Path):
    with (
        pytest.raises(InterruptedError),
        disk_errors(tmp_path, "the corpus", ELSEWHERE),
    ):
        raise InterruptedError(errno.EINTR, "interrupted")


def test_too_little_room_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1024))
    check_room(tmp_path, "the corpus", ELSEWHERE, 1024)
    with pytest.raises(LuthierError, match=r"the corpus needs 2.0 KiB, 1.0 KiB are free"):
        check_room(tmp_path, "the corpus", ELSEWHERE, 2048)


def test_room_is_measured_where_a_folder_will_lie(tmp_path: Path):
    assert free_bytes(tmp_path / "not" / "there") == free_bytes(tmp_path)


def test_the_message_without_a_size(tmp_path: Path):
    assert "needs more than the" in str(disk_full(tmp_path, "the corpus", ELSEWHERE, 0))


def test_a_folder_is_made_and_tried(tmp_path: Path):
    check_folder(tmp_path / "a" / "b", "the corpus", ELSEWHERE)
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(LuthierError, match=r"the corpus can't be written(.|\n)*Set corpus_dir"):
        check_folder(tmp_path / "file" / "c", "the corpus", ELSEWHERE)
    with pytest.raises(LuthierError, match="/proc/x: the corpus can't be written"):
        check_folder(Path("/proc/x"), "the corpus", ELSEWHERE)
