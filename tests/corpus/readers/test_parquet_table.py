from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.readers.parquet_table import read_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_rows_with_nested_messages(tmp_path: Path, read_all):
    messages = [{"role": "user", "content": "天"}, {"role": "assistant", "content": "b"}]
    path = _write(tmp_path / "a.parquet", [{"messages": messages}] * 3)
    rows, rejections = read_all(read_parquet, path)
    assert [row for _, row in rows] == [{"messages": messages}] * 3
    assert [str(origin) for origin, _ in rows] == [f"{path} row {row}" for row in range(3)]
    assert rejections == []


def test_table_without_rows(tmp_path: Path, read_all):
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="the table has no rows"):
        read_all(read_parquet, tmp_path / "a.parquet")


def test_other_content_and_cut_files(tmp_path: Path, write_bytes, read_all):
    with pytest.raises(DataError, match="the file can't be read as parquet"):
        read_all(read_parquet, write_bytes("a.parquet", b'{"a": 1}\n'))
    whole = _write(tmp_path / "b.parquet", [{"a": "x"}] * 50).read_bytes()
    with pytest.raises(DataError, match=r"c\.parquet: the file can't be read as parquet"):
        read_all(read_parquet, write_bytes("c.parquet", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="this is a folder"):
        read_all(read_parquet, tmp_path)
