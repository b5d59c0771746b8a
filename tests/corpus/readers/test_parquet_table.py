from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.readers import parquet_table
from luthier.corpus.readers.parquet_table import read_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
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


def test_names_that_stand_twice(tmp_path: Path, read_all):
    one = pa.array(["x"])
    pq.write_table(pa.table([one, one], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the column 'a' stands twice"):
        read_all(read_parquet, tmp_path / "a.parquet")
    inner = pa.StructArray.from_arrays([one, one], names=["role", "role"])
    listed = pa.ListArray.from_arrays([0, 1], inner)
    pq.write_table(pa.table({"messages": listed}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: the column 'role' stands twice"):
        read_all(read_parquet, tmp_path / "b.parquet")


def test_batches_are_small_where_rows_are_large(tmp_path: Path, read_all, monkeypatch):
    monkeypatch.setattr(parquet_table, "_BATCH_BYTES", 1_000)
    rows = [{"a": f"{number}" + "x" * 300} for number in range(20)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7, use_dictionary=False)
    sizes: list[int] = []
    monkeypatch.setattr(
        parquet_table, "_check_sizes", lambda path, batch, num_before: sizes.append(batch.num_rows)
    )
    found, _ = read_all(read_parquet, tmp_path / "a.parquet")
    assert [row for _, row in found] == rows
    assert [origin.row for origin, _ in found] == list(range(20))
    assert max(sizes) <= 3


def test_row_that_is_too_long(tmp_path: Path, read_all, monkeypatch):
    monkeypatch.setattr(parquet_table, "MAX_ROW_BYTES", 2_000)
    path = _write(tmp_path / "a.parquet", [{"a": "x" * 300}] * 9 + [{"a": "y" * 3_000}])
    with pytest.raises(DataError, match=r"a\.parquet row 9: this row is longer than"):
        read_all(read_parquet, path)


def test_flipped_bits_are_found_where_the_file_has_checksums(tmp_path: Path, read_all):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": ["needle" * 9]})
    pq.write_table(
        table,
        path,
        write_page_checksum=True,
        write_statistics=False,
        compression="none",
        use_dictionary=False,
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(b"needleneedle", b"needlenoodle", 1))
    with pytest.raises(DataError, match=r"a\.parquet: the file can't be read as parquet: .*CRC"):
        read_all(read_parquet, path)
