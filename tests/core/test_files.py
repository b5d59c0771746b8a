"""Files and folders are whole or not there, whatever breaks in the middle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from luthier.core.files import (
    STAGING_PREFIX,
    STALE_S,
    append_jsonl,
    read_jsonl,
    remove_stale_staging,
    staged_files,
    staged_folder,
    sync_folder,
    write_json,
    write_jsonl,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "première\r\nzwei\n")
    assert path.read_bytes() == "première\r\nzwei\n".encode()
    write_text(path, "second")
    assert path.read_text() == "second"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace", "encode"])
def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.json"
    write_text(path, "old")
    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    if broken == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    text = "\ud800" if broken == "encode" else "new"
    with pytest.raises(
        UnicodeEncodeError if broken == "encode" else OSError, match=r"surrogate|No space"
    ):
        write_text(path, text)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_write_json_is_readable_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "琴师", "values": [1, 0.1]})
    assert path.read_text(encoding="utf-8") == (
        '{\n  "name": "琴师",\n  "values": [\n    1,\n    0.1\n  ]\n}\n'
    )


def test_write_json_of_something_else_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"path": tmp_path})
    assert json.loads(path.read_text()) == 1


def test_append_jsonl_adds_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"a": "é\n"})
    append_jsonl(path, {"a": 2})
    assert path.read_bytes() == '{"a": "é\\n"}\n{"a": 2}\n'.encode()


def test_jsonl_comes_back_but_for_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_jsonl(path) == []
    records = [{"text": "a\nb"}, {"text": "é"}]
    write_jsonl(path, records)
    with path.open("ab") as stream:
        stream.write('{"text": "é'.encode()[:-1])
    assert read_jsonl(path) == records


def test_staged_folder_appears_when_it_is_done(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "result"
    with staged_folder(target) as staging:
        assert staging.parent == target.parent
        assert staging.name.startswith(STAGING_PREFIX)
        (staging / "inner").mkdir()
        (staging / "inner" / "a.txt").write_text("a")
        assert not target.exists()
    assert (target / "inner" / "a.txt").read_text() == "a"
    assert names(target.parent) == ["result"]


def test_staged_folder_replaces_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with staged_folder(target) as staging:
        (staging / "new.txt").write_text("new")
        assert names(target) == ["old.txt"]
    assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    def fill() -> None:
        with staged_folder(target) as staging:
            (staging / "half.txt").write_text("half")
            raise error

    target = tmp_path / "result"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(error):
        fill()
    assert names(target) == ["old.txt"]
    assert names(tmp_path) == ["result"]


def test_a_failing_rename_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(self: Path, to: Path) -> Path:
        if self.name.startswith(f"{STAGING_PREFIX}result"):
            raise OSError(5, "Input/output error")
        return original(self, to)

    def fill() -> None:
        with staged_folder(target) as staging:
            (staging / "new.txt").write_text("new")

    original = Path.rename
    target = tmp_path / "result"
    target.mkdir()
    (target / "old.txt").write_text("old")
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"):
        fill()
    assert names(target) == ["old.txt"]
    assert names(tmp_path) == ["result"]


def test_everything_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    renamed: list[int] = []
    opened: dict[int, str] = {}
    real_open, real_rename = os.open, Path.rename

    def spy_open(path: Any, flags: int, *rest: Any, **names: Any) -> int:
        descriptor = real_open(path, flags, *rest, **names)
        opened[descriptor] = Path(path).name
        return descriptor

    def spy_rename(self: Path, to: Path) -> Path:
        renamed.append(len(flushed))
        return real_rename(self, to)

    monkeypatch.setattr(os, "open", spy_open)
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(opened[descriptor]))
    monkeypatch.setattr(Path, "rename", spy_rename)
    with staged_folder(tmp_path / "result") as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "a.bin").write_bytes(b"a")
        (staging / "b.bin").write_bytes(b"b")
    assert sorted(flushed[: renamed[0]]) == sorted(["inner", "a.bin", "b.bin", staging.name])
    assert flushed[renamed[0] :] == [tmp_path.name]


def test_a_retired_folder_that_stays_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.rmtree

    def refuse(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(path)

    target = tmp_path / "result"
    target.mkdir()
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with staged_folder(target) as staging:
        (staging / "new.txt").write_text("new")
    assert names(target) == ["new.txt"]
    (left,) = [name for name in names(tmp_path) if name != "result"]
    assert left.startswith(STAGING_PREFIX)
    real(tmp_path / left)


def test_folders_are_not_flushed_where_the_system_does_not_know_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    sync_folder(tmp_path)
    assert len(flushed) == 1
    monkeypatch.setattr(os, "name", "nt")
    sync_folder(tmp_path / "is not even there")
    assert len(flushed) == 1


def test_only_what_nobody_touched_for_a_day_is_swept_away(tmp_path: Path):
    old, new, other = (tmp_path / name for name in (".staging-old", ".staging-new", "kept"))
    for folder in (old, new, other):
        folder.mkdir()
        (folder / "part").touch()
    long_ago = old.stat().st_mtime - STALE_S - 60
    for folder in (old, other):
        os.utime(folder, (long_ago, long_ago))
    remove_stale_staging(tmp_path)
    assert not old.exists()
    assert new.exists()
    assert other.exists()


def test_staged_files_come_whole_and_the_named_ones_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.json").write_text("old")
    (tmp_path / "other").write_text("other")
    order: list[str] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    with staged_files(tmp_path, last=".weights") as staging:
        for name in ("a.weights", "b.json", "c.json"):
            (staging / name).write_text("new")
        assert (tmp_path / "b.json").read_text() == "old"
    assert order == ["b.json", "c.json", "a.weights"]
    assert names(tmp_path) == ["a.weights", "b.json", "c.json", "other"]
    assert (tmp_path / "b.json").read_text() == "new"


def test_staged_files_of_a_failed_block_never_come(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with staged_files(tmp_path) as staging:
            (staging / "a").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
