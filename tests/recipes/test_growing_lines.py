"""A file that grows is read once, however often it is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.core.errors import RunError
from luthier.core.files import append_jsonl, write_text
from luthier.recipes.growing_lines import GrowingLines


def steps(lines: GrowingLines) -> list[int]:
    return [record["step"] for record in lines.read()]


def test_each_look_adds_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = GrowingLines(path)
    assert steps(lines) == []
    append_jsonl(path, {"step": 1, "text": "琴"})
    assert steps(lines) == [1]
    first = lines.read()[0]
    append_jsonl(path, {"step": 2})
    append_jsonl(path, {"step": 3})
    assert steps(lines) == [1, 2, 3]
    assert lines.read()[0] is first  # It was not parsed again.


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps({"step": 1, "text": "琴"}, ensure_ascii=False).encode() + b"\n"
    lines = GrowingLines(path)
    for end in (5, len(whole) - 4, len(whole) - 1):  # The second cuts a character in two.
        path.write_bytes(whole[:end])
        assert steps(lines) == []
    with path.open("ab") as stream:
        stream.write(whole[-1:])
    assert steps(lines) == [1]


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = GrowingLines(path)
    for step in (1, 2, 3):
        append_jsonl(path, {"step": step})
    assert steps(lines) == [1, 2, 3]
    write_text(path, "".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 30, 40, 50)))
    assert steps(lines) == [1, 2, 30, 40, 50]


def test_a_file_that_was_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    lines = GrowingLines(path)
    assert steps(lines) == [1, 2]
    with path.open("r+") as stream:
        stream.truncate(len('{"step": 1}\n'))
    assert steps(lines) == [1]
    path.unlink()
    assert steps(lines) == []


@pytest.mark.parametrize("line", [b"{", b"[1]", b"{}", b'{"step": "\xff"}'])
def test_a_whole_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: this line is no record of a step"):
        GrowingLines(path).read()
