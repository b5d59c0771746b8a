from __future__ import annotations

from pathlib import Path

from luthier.export.target import Artifact


def test_an_artifact_is_a_folder_or_a_file_in_it():
    assert Artifact(Path("a")).path == Path("a")
    assert Artifact(Path("a"), "Q8_0", "model.gguf").path == Path("a/model.gguf")
