"""What the tests of the corpus share: a reader run to its end, and rows written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Origin, Rejection
from luthier.contracts.corpus_step import Columns
from luthier.corpus.bad_rows import OnBadRow

Reader = Callable[[Path, OnBadRow], Iterator[tuple[Origin, dict[str, Any]]]]
ReadAll = Callable[[Reader, Path], tuple[list[tuple[Origin, dict[str, Any]]], list[Rejection]]]
WriteBytes = Callable[[str, bytes], Path]
WriteRows = Callable[[str, list[Any]], Path]


@pytest.fixture
def read_all() -> ReadAll:
    """Run a reader to its end; return its rows and the rows that it could not deliver."""

    def run(reader: Reader, path: Path):
        rejections: list[Rejection] = []
        return list(reader(path, rejections.append)), rejections

    return run


@pytest.fixture
def write_bytes(tmp_path: Path) -> WriteBytes:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Write rows as one JSON list or one object a line, by the suffix of the name."""

    def write(name: str, rows: list[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            text = json.dumps(rows, ensure_ascii=False, indent=1)
        else:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
        return path

    return write


MakeColumns = Callable[..., Columns]


@pytest.fixture
def make_columns() -> MakeColumns:
    """Return rows of the canonical record, each of a prompt and an answer, with other columns."""

    def make(rows: list[tuple[str, str]], source: str = "a.jsonl", **others: list[Any]) -> Columns:
        nothing: list[Any] = [None] * len(rows)
        turns = [[_turn("user", prompt), _turn("assistant", answer)] for prompt, answer in rows]
        columns = {
            "id": [f"{source}#{number}" for number in range(len(rows))],
            "source": [source] * len(rows),
            "origin": [f"raw/{source}:{number + 1}" for number in range(len(rows))],
            "messages": turns,
            **{name: list(nothing) for name in ("text", "chosen", "rejected", "label", "tools")},
            **{name: list(nothing) for name in ("category", "language", "task")},
            "weight": [1.0] * len(rows),
        }
        return columns | others

    return make


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content, "weight": 1.0}
