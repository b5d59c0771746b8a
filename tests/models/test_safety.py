"""What stands in a config is looked at before any library reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.models.safety import read_model_config, refuse_code


def test_a_plain_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_model_config(tmp_path) == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("file", "mend"),
    [
        ("adapter_config.json", "It is an adapter: name its base model here"),
        ("model-Q4_K_M.gguf", "It holds a GGUF file"),
        ("README.md", "Point model_name_or_path at the folder that has config.json"),
    ],
)
def test_a_folder_without_a_config(tmp_path: Path, file: str, mend: str) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(ModelError, match=r"this folder holds no config\.json") as caught:
        read_model_config(tmp_path)
    assert str(caught.value.mend).startswith(mend)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("data", [b"{", b"", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000])
def test_a_broken_config(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ModelError, match="the model's config is not valid JSON") as caught:
        read_model_config(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"architectures": ["X"]}'])
def test_a_config_without_a_model_type(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="the model's config names no model_type"):
        read_model_config(tmp_path)


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal", "trust_remote_code"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_keys_that_lead_to_code_are_found_at_any_depth(
    tmp_path: Path, key: str, depth: int
) -> None:
    config: Any = {key: {"AutoModel": "modeling.Model"}}
    for _ in range(depth):
        config = {"text_config": [config, 1], "other": "x"}
    with pytest.raises(ModelError, match=rf"own Python code \({key} in its config\)"):
        refuse_code(tmp_path, config, trust_remote_code=False)
    refuse_code(tmp_path, config, trust_remote_code=True)


def test_an_ordinary_config_passes(tmp_path: Path) -> None:
    config = {"model_type": "llama", "rope_scaling": {"type": "yarn"}, "note": "auto_map"}
    before = json.dumps(config)
    refuse_code(tmp_path, config, trust_remote_code=False)
    assert json.dumps(config) == before
    with pytest.raises(ModelError, match="own Python code"):
        refuse_code(tmp_path, config | {"auto_map": {}}, trust_remote_code=False)
