from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.core.hashing import hash_file
from luthier.corpus.folder import KIND, TRAIN, VAL, is_corpus_folder, read_manifest, side_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    listed = {}
    for name in ("train/part-00001.parquet", "train/part-00000.parquet", "dropped.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        listed[name] = {"sha256": hash_file(path), "bytes": path.stat().st_size, "rows": 1}
    manifest = {"kind": KIND, "files": listed}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return tmp_path


def test_the_files_of_a_side_in_order(folder: Path):
    assert is_corpus_folder(folder)
    assert [path.name for path in side_files(folder, TRAIN)] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert side_files(folder, VAL) == []


def test_a_missing_file_is_named(folder: Path):
    (folder / "train/part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00000.parquet: .*missing(.|\n)*luthier prepare"):
        side_files(folder, TRAIN)


@pytest.mark.parametrize("content", [b"train/part-0000x.parquet", b"train/part-00000.parquet "])
def test_a_changed_file_is_named(folder: Path, content: bytes):
    (folder / "train/part-00000.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"part-00000.parquet: .*changed or is damaged"):
        side_files(folder, TRAIN)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "a run"}', "\udcff"])
def test_other_folders_are_none(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert not is_corpus_folder(tmp_path)
    with pytest.raises(DataError, match=r"no corpus that luthier prepared(.|\n)*manifest.json"):
        read_manifest(tmp_path)


def test_a_folder_that_is_not_there_is_none(tmp_path: Path):
    assert not is_corpus_folder(tmp_path / "gone")
