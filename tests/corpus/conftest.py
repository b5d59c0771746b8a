"""What the tests of the corpus share: a reader run to its end, and rows written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Origin, Rejection
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
