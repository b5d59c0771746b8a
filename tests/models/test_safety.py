"""What stands in a config is looked at before any library reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.models.safety import (
    check_adapter_folder,
    check_model_folder,
    read_model_config,
    refuse_code,
)


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


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(value))
    return path


CODE_KEYS = (
    *("auto_map", "_attn_implementation_internal", "_experts_implementation_internal"),
    *("trust_remote_code", "custom_pipelines", "custom_generate", "megatron_config"),
)


@pytest.mark.parametrize("key", CODE_KEYS)
@pytest.mark.parametrize("depth", [0, 1, 2, 400])
def test_keys_that_lead_to_code_are_found_at_any_depth(
    tmp_path: Path, key: str, depth: int
) -> None:
    config: Any = {key: {"AutoModel": "modeling.Model"}}
    for _ in range(depth):
        config = {"text_config": [config, 1], "other": "x"}
    path = write(tmp_path, "config.json", config)
    with pytest.raises(ModelError, match=rf"own Python code \({key} in its config\)") as caught:
        refuse_code(tmp_path, trust_remote_code=False)
    assert caught.value.where == str(path)
    refuse_code(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize(
    "value", ["someone/kernel", "someone/kernel@v1:forward", {"": "sdpa", "text": "someone/k"}]
)
def test_a_kernel_of_the_hub_is_code(tmp_path: Path, value: Any) -> None:
    write(tmp_path, "config.json", {"text_config": {"_attn_implementation": value}})
    with pytest.raises(ModelError, match="own Python code"):
        refuse_code(tmp_path, trust_remote_code=False)


def test_an_ordinary_config_passes(tmp_path: Path) -> None:
    config = {"model_type": "llama", "rope_scaling": {"type": "yarn"}, "note": "auto_map"}
    config |= {"attn_implementation": "sdpa", "auto_map": None, "path": "a/b"}
    path = write(tmp_path, "config.json", config)
    refuse_code(tmp_path, trust_remote_code=False)
    check_model_folder(tmp_path, trust_remote_code=False)
    assert json.loads(path.read_text()) == config
    write(tmp_path, "config.json", config | {"auto_map": {}})
    with pytest.raises(ModelError, match="own Python code"):
        refuse_code(tmp_path, trust_remote_code=False)


def test_a_config_that_is_no_json_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        refuse_code(tmp_path, trust_remote_code=True)


def test_an_adapter_is_a_lora(tmp_path: Path) -> None:
    path = write(tmp_path, "adapter_config.json", {"peft_type": "XLORA", "adapters": {"a": "/b"}})
    with pytest.raises(ModelError, match="the adapter is of the kind 'XLORA'") as caught:
        check_adapter_folder(tmp_path)
    assert caught.value.where == str(path)
    write(tmp_path, "adapter_config.json", [])
    with pytest.raises(ModelError, match="the adapter is of the kind None"):
        check_adapter_folder(tmp_path)
    write(tmp_path, "adapter_config.json", {"peft_type": "LORA", "megatron_config": None})
    check_adapter_folder(tmp_path)


def test_an_adapter_within_a_model_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"model_type": "llama"})
    write(tmp_path, "adapter_config.json", {"peft_type": "LORA"})
    check_model_folder(tmp_path, trust_remote_code=False)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"the weights are pickled \(adapter_model\.bin\)"):
        check_model_folder(tmp_path, trust_remote_code=True)


def test_weights_that_the_config_names_stay_in_the_folder(tmp_path: Path) -> None:
    for name in ("../other/model.safetensors", "/etc/passwd", "adapter_model.bin", 3):
        write(tmp_path, "config.json", {"model_type": "llama", "transformers_weights": name})
        with pytest.raises(ModelError, match="which is no safetensors file of this folder"):
            check_model_folder(tmp_path, trust_remote_code=True)
