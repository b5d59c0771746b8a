from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.corpus.parts import part_paths, read_part, read_parts, write_part


def test_parts_come_back_as_they_were_and_in_order(make_columns: Any, tmp_path: Path):
    one, two = make_columns([("a", "b")]), make_columns([("中", "文"), ("e", "f")])
    write_part(two, tmp_path / "part-00010.parquet")
    write_part(one, tmp_path / "part-00002.parquet")
    assert [path.name for path in part_paths(tmp_path)] == [
        "part-00002.parquet",
        "part-00010.parquet",
    ]
    assert read_part(tmp_path / "part-00010.parquet")["id"] == two["id"]
    assert [part["weight"] for part in read_parts(tmp_path)] == [[1.0], [1.0, 1.0]]


def test_a_batch_without_rows_is_a_part_too(make_columns: Any, tmp_path: Path):
    write_part(make_columns([]), tmp_path / "part-00000.parquet")
    assert read_part(tmp_path / "part-00000.parquet")["messages"] == []
