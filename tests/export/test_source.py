from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from luthier.core.errors import ModelError
from luthier.export.source import INDEX, read_json


def test_tensors_come_one_by_one_as_they_are_stored(source):
    stored = load_file(source.folder / "model.safetensors")
    streamed = dict(source.tensors())
    assert streamed.keys() == stored.keys()
    assert all(torch.equal(streamed[name], stored[name]) for name in stored)
    assert source.num_bytes == (source.folder / "model.safetensors").stat().st_size
    assert source.config["model_type"] == "llama"


def test_shards_are_those_that_the_index_names(source):
    whole = source.folder / "model.safetensors"
    (source.folder / "model-00002-of-00002.safetensors").write_bytes(whole.read_bytes())
    whole.rename(source.folder / "model-00001-of-00002.safetensors")
    names = [f"model-0000{n}-of-00002.safetensors" for n in (2, 1)]
    (source.folder / "model-left-over.safetensors").write_bytes(b"")
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (source.folder / INDEX).write_text(json.dumps(index))
    assert [file.name for file in source.weight_files()] == sorted(names)


def test_a_folder_without_weights_is_refused(source, tmp_path):
    with pytest.raises(ModelError, match="no weights to export"):
        replace(source, folder=tmp_path).weight_files()


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "missing or damaged"), ("{", "it is no object"), ("[1]", "it is no object")],
)
def test_a_damaged_file_is_named(tmp_path, text, problem):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelError, match=problem) as error:
        read_json(path)
    assert error.value.where == str(path)
