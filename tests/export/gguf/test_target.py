"""Tiny models of every architecture: what llama.cpp says equals what transformers says."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import MissingExtraError
from luthier.export.gguf.target import GgufTarget
from luthier.export.target import Artifact

pytest.importorskip("xllamacpp", reason="xllamacpp, which runs llama.cpp, is not installed")

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": ("Llama", "chatml", {}),
    "llama, tied": ("Llama", "chatml", {"tie_word_embeddings": True}),
    "llama, biases": ("Llama", "llama3", {"attention_bias": True}),
    "llama 3.1": ("Llama", "llama3", {"rope_parameters": LLAMA31}),
    "llama, yarn": ("Llama", "llama2", {"rope_parameters": YARN}),
    "llama, linear": (
        "Llama",
        "llama2",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "mistral": ("Mistral", "llama2", {"sliding_window": None}),
    "qwen 2": ("Qwen2", "qwen", {"tie_word_embeddings": True}),
    "qwen 3": ("Qwen3", "qwen", {"head_dim": 32}),
    "gemma": ("Gemma", "gemma", {}),
    "gemma 2": ("Gemma2", "gemma", {"sliding_window": 16, "query_pre_attn_scalar": 16}),
    "gemma 3": (
        "Gemma3",
        "gemma",
        {"sliding_window": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 7},
    ),
}


def silent(line: str) -> None:
    """Be told nothing."""


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_what_transformers_does(
    make_source: Any, make_probe: Any, tmp_path: Path, name: str
) -> None:
    family, tokenizer, config = MODELS[name]
    if family == "Gemma3":
        family, config = "Gemma3", dict(config)
    source = make_source(family, tokenizer, **config)
    probe = make_probe(source)
    target = GgufTarget()
    target.refuse(source.config)
    for kind in ("F32", "F16") if name in ("llama", "qwen 3") else ("F32",):
        out = tmp_path / kind
        out.mkdir()
        artifact = target.write(source, kind, out, silent)
        result = target.check(artifact, probe)
        assert result.problems == ()
        assert result.kl is not None
        assert result.kl < 1e-4
        assert (result.ids_equal, result.stops, result.cached_equal) == (True, True, True)


@pytest.fixture
def llama(make_source: Any) -> Any:
    """A LLaMA-like source whose tokenizer has a pattern and adds BOS."""
    return make_source("Llama", "llama3")


def checked(source: Any, probe: Any, folder: Path) -> Any:
    """Write a file of another source and hold it against a probe."""
    folder.mkdir()
    target = GgufTarget()
    return target.check(target.write(source, "F32", folder, silent), probe)


def changed(source: Any, folder: Path) -> Any:
    """Copy a source, to plant a fault in it."""
    shutil.copytree(source.folder, folder)
    return replace(source, folder=folder)


def change_weights(source: Any, change: Any) -> None:
    """Change the tensors of a source in place."""
    from safetensors.torch import load_file, save_file

    path = source.folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_another_rope_permutation_is_caught(llama: Any, make_probe: Any, tmp_path: Path) -> None:
    faulty = changed(llama, tmp_path / "faulty")

    def unpaired(tensors: Any) -> None:
        # The inverse of what the writer does: the file holds the rows as transformers has them.
        for name in [n for n in tensors if n.endswith(("q_proj.weight", "k_proj.weight"))]:
            weight = tensors[name]
            pairs = weight.reshape(-1, 8, 2, weight.shape[1])
            tensors[name] = pairs.transpose(1, 2).reshape(weight.shape).contiguous()

    change_weights(faulty, unpaired)
    result = checked(faulty, make_probe(llama), tmp_path / "out")
    assert any("its KL divergence is" in problem for problem in result.problems)
    assert result.ids_equal


def test_a_swapped_tensor_is_caught(llama: Any, make_probe: Any, tmp_path: Path) -> None:
    faulty = changed(llama, tmp_path / "faulty")

    def swapped(tensors: Any) -> None:
        gate, up = (f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up"))
        tensors[gate], tensors[up] = tensors[up], tensors[gate]

    change_weights(faulty, swapped)
    result = checked(faulty, make_probe(llama), tmp_path / "out")
    assert any("its KL divergence is" in problem for problem in result.problems)


def test_another_template_is_caught(llama: Any, make_probe: Any, tmp_path: Path) -> None:
    faulty = changed(llama, tmp_path / "faulty")
    template = faulty.folder / "chat_template.jinja"
    template.write_text(template.read_text().replace(" | trim", " | trim + ' '"))
    result = checked(faulty, make_probe(llama), tmp_path / "out")
    (problem,) = result.problems
    assert problem.startswith("the chat template differs: from token")
    assert result.ids_equal is False


def test_a_missing_stop_token_is_caught(make_source: Any, make_probe: Any, tmp_path: Path) -> None:
    # A token whose name tells llama.cpp nothing: it finds the usual ones by itself.
    source = make_source("Llama", "chatml")
    stop = 300
    probe = replace(make_probe(source), stop_token_ids=(stop,))
    assert (
        checked(replace(source, stop_token_ids=(stop,)), probe, tmp_path / "right").problems == ()
    )
    result = checked(source, probe, tmp_path / "out")
    assert result.problems == (f"it does not stop at [{stop}], which end an answer",)
    assert result.stops is False


def test_another_pre_tokenizer_is_caught(llama: Any, make_probe: Any, tmp_path: Path) -> None:
    faulty = changed(llama, tmp_path / "faulty")
    tokenizer = faulty.folder / "tokenizer.json"
    text = tokenizer.read_text(encoding="utf-8")
    assert "\\\\p{N}{1,3}" in text
    tokenizer.write_text(text.replace("\\\\p{N}{1,3}", "\\\\p{N}"), encoding="utf-8")
    result = checked(faulty, make_probe(llama), tmp_path / "out")
    (problem,) = result.problems
    assert problem.startswith("the tokenizer differs: from token")


def test_a_file_that_llama_cpp_cannot_open_is_a_failed_check(
    llama: Any, make_probe: Any, tmp_path: Path
) -> None:
    artifact = GgufTarget().write(llama, "F32", tmp_path, silent)
    artifact.path.write_bytes(artifact.path.read_bytes()[:5000])
    result = GgufTarget().check(artifact, make_probe(llama))
    (problem,) = result.problems
    assert problem.startswith(f"llama.cpp can't open {artifact.main}")


def test_what_can_not_be_checked_here_says_how_to(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    result = GgufTarget().check(Artifact(tmp_path, "F32", "model.gguf"), None)  # pyright: ignore[reportArgumentType]
    assert result.not_checked is not None
    assert "pip install 'luthier[gguf]' and then luthier verify" in result.not_checked
    assert result.verdict == "not checked"


def test_without_the_packages_the_command_that_brings_them_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    GgufTarget().require()
    monkeypatch.setitem(sys.modules, "libgguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'luthier\[gguf\]'"):
        GgufTarget().require()


def test_the_file_is_named_after_run_and_type(llama: Any, tmp_path: Path) -> None:
    artifact = GgufTarget().write(llama, "F16", tmp_path, silent)
    assert artifact.path == tmp_path / "tiny-Llama-F16.gguf"
    assert artifact.path.is_file()
    assert GgufTarget().types()[:3] == ("F32", "F16", "BF16")
    assert GgufTarget().bits("Q8_0") == 8.5
