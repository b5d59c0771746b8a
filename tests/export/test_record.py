from __future__ import annotations

import json

import pytest

from luthier.core.errors import RunError
from luthier.core.hashing import hash_file
from luthier.export.check import CheckResult
from luthier.export.record import (
    EXPORT_JSON,
    changed_files,
    file_sizes,
    read_record,
    write_record,
)
from luthier.export.target import Artifact


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "probe.json").write_text("{}")
    (tmp_path / "model.gguf").write_bytes(b"weights")
    found = Artifact(tmp_path, "Q8_0", "model.gguf", ("a width fell back",))
    result = CheckResult(kl=0.5, problems=("too far",))
    facts = {"base": "tiny", "licence": None, "data": {"prepared data": "abc"}}
    write_record(found, "gguf", result, facts, {"version": "1"}, 1.234)
    return found


def test_the_record_says_what_it_is_and_how_it_did(artifact):
    record = read_record(artifact.folder)
    expected = {"target": "gguf", "type": "Q8_0", "main": "model.gguf", "bytes": 7}
    assert {name: record[name] for name in expected} == expected
    assert record["probe_bytes"] == 2
    assert record["seconds"] == 1.23
    assert record["check"]["verdict"] == "failed"
    assert record["check"]["problems"] == ["too far"]
    assert record["check"]["bound"] == {"kl": 0.03, "top1": 0.93}
    assert record["notes"] == ["a width fell back"]
    assert record["data"] == {"prepared data": "abc"}
    assert "licence" not in record
    assert record["files"] == {
        "model.gguf": hash_file(artifact.path),
        "probe/probe.json": hash_file(artifact.folder / "probe" / "probe.json"),
    }
    assert file_sizes(artifact.folder) == {"model.gguf": 7, "probe/probe.json": 2}


def test_changed_and_missing_files_are_named(artifact):
    record = read_record(artifact.folder)
    assert changed_files(artifact.folder, record) == []
    artifact.path.write_bytes(b"Weights")
    (artifact.folder / "probe" / "probe.json").unlink()
    assert changed_files(artifact.folder, record) == [
        "model.gguf is not the file that was exported: its sha256 differs",
        "probe/probe.json is missing",
    ]


def test_a_folder_without_a_record_is_no_export(tmp_path):
    with pytest.raises(RunError, match="holds no export"):
        read_record(tmp_path)


@pytest.mark.parametrize("record", [{}, {"format": 2, "files": {}}, {"format": 1, "files": []}])
def test_another_format_is_refused(tmp_path, record):
    (tmp_path / EXPORT_JSON).write_text(json.dumps(record))
    with pytest.raises(RunError, match="another format"):
        read_record(tmp_path)
