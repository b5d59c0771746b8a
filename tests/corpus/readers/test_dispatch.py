from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.paths import expand
from luthier.corpus.readers.dispatch import check_kind, is_data_file, read_rows, read_source
from luthier.corpus.readers.source import Source


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b'[{"a": "1"}, {"a": "2"}]'),
        ("a.json", b'{"a": "1"}\n{"a": "2"}\n'),
        ("a.json", b'\xef\xbb\xbf\n{"a": "1"}\n\n{"a": "2"}'),
        ("a.jsonl", b'{"a": "1"}\n{"a": "2"}\n'),
        ("a.jsonl", b'\n[{"a": "1"},\n{"a": "2"}]'),
        ("a.ndjson", b'{"a": "1"}\n{"a": "2"}\n'),
        ("a.CSV", b"a\n1\n2\n"),
    ],
)
def test_each_kind_by_name_and_json_by_content(write_bytes, read_all, name: str, data: bytes):
    rows, rejections = read_all(read_rows, write_bytes(name, data))
    assert [row for _, row in rows] == [{"a": "1"}, {"a": "2"}]
    assert rejections == []


def test_parquet(tmp_path: Path, read_all):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"a": ["1"]}), tmp_path / "a.parquet")
    assert [row for _, row in read_all(read_rows, tmp_path / "a.parquet")[0]] == [{"a": "1"}]


def test_lone_object_is_a_row_by_line_and_an_error_as_a_list(write_bytes, read_all):
    rows, _ = read_all(read_rows, write_bytes("a.jsonl", b'{"a": 1}'))
    assert len(rows) == 1
    with pytest.raises(DataError, match="the file is a single object"):
        read_all(read_rows, write_bytes("a.json", b'{"a": 1}'))
    with pytest.raises(DataError, match="the file is a single object"):
        read_all(read_rows, write_bytes("a.json", b'{\n"data": [{"a": 1}]\n}'))


def test_source_is_a_file_or_a_hub_name(write_bytes, monkeypatch):
    path = write_bytes("a.jsonl", b'{"a": 1}')
    assert len(list(read_source(Source("a", path=path), print))) == 1
    monkeypatch.setattr("luthier.corpus.readers.dispatch.read_hub", lambda source: iter("xyz"))
    assert list(read_source(Source("o/n", hub="o/n"), print)) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b'[{"text": "1"}, {"text": "2"}]'),
        ("a.json", b'\xef\xbb\xbf{"text": "1"}\n{"text": "2"}'),
        ("a.jsonl", b'{"text": "1"}\n{"text": "2"}\n'),
        ("a.NDJSON", b'[{"text": "1"},\n{"text": "2"}]'),
        ("a.csv", b"text\n1\n2\n"),
        ("a.txt", b"1\n2\n"),
    ],
)
@pytest.mark.parametrize("packing", [".gz", ".zst", ".GZ"])
def test_each_kind_packed(write_bytes, read_all, pack, name: str, data: bytes, packing: str):
    path = write_bytes(name + packing, pack(data, packing))
    assert is_data_file(path)
    rows, rejections = read_all(read_rows, path)
    assert [row for _, row in rows] == [{"text": "1"}, {"text": "2"}]
    assert rejections == []


def test_long_white_space_before_the_first_row(write_bytes, read_all):
    blank = b"\n" + b" " * 200_000
    assert len(read_all(read_rows, write_bytes("a.json", blank + b'[{"a": 1}]'))[0]) == 1
    assert len(read_all(read_rows, write_bytes("a.json", blank + b'\n{"a": 1}\n{"a": 2}'))[0]) == 2
    with pytest.raises(DataError, match="the file is empty"):
        read_all(read_rows, write_bytes("a.json", blank))


def test_folders_and_patterns_know_both_suffixes(tmp_path: Path):
    names = ["a.jsonl.gz", "b.txt", "c.csv.zst", "d/e.json", "README.txt", "License.txt", "f.gz"]
    names += ["g.parquet.gz", "h.tar.gz"]
    (tmp_path / "d").mkdir()
    for name in names:
        (tmp_path / name).touch()
    files = [tmp_path / name for name in names[:4]]
    assert expand(str(tmp_path)) == files
    assert expand(str(tmp_path / "*.gz").replace("*", "a*")) == files[:1]
    assert expand(str(tmp_path / "README.txt")) == [tmp_path / "README.txt"]
    with pytest.raises(DataError, match=r"h\.tar\.gz: files of the kind \.tar\.gz can't be read"):
        expand(str(tmp_path / "h*"))


def test_unknown_kinds():
    assert is_data_file(Path("a.JSON"))
    assert not is_data_file(Path("README.md"))
    check_kind(Path("a.csv"))
    with pytest.raises(
        DataError, match=r"a\.md: files of the kind \.md can't be read\n  Known: .*\.txt.*\.zst"
    ):
        check_kind(Path("a.md"))
    for name in ("a.jsonl.xz", "a.tar.gz", "a.parquet.zst", "a.zip"):
        with pytest.raises(DataError, match=r"can't be read\n  Unpack it first"):
            check_kind(Path(name))
    with pytest.raises(DataError, match=r"kind \.gz can't be read\n  Name it .* a\.jsonl\.gz"):
        check_kind(Path("a.gz"))
    with pytest.raises(DataError, match="kind without suffix can't be read"):
        read_rows(Path("data"), print)
