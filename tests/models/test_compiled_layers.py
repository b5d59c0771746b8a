"""Compiled layers: the same numbers, the same names, and a reason where there is no compiler."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from luthier.models import compiled_layers
from luthier.models.adapters import apply_tuning
from luthier.models.compiled_layers import compile_layers, decoder_layers, missing_compiler
from luthier.models.segments import SEGMENTS, packed_inputs, register_segments
from luthier.models.settings import FullTuning, LoraTuning

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _attention_as_it_was() -> Iterator[None]:
    yield
    register_segments()
    torch.compiler.reset()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the machine what compiling takes, whatever this one has; returns Python's headers."""
    (tmp_path / "Python.h").touch()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return tmp_path


def is_compiled(layer: Any) -> bool:
    return layer._compiled_call_impl is not None


@pytest.fixture
def can_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_layers, "missing_compiler", lambda kind: None)


@pytest.mark.parametrize("tuning", [FullTuning(), LoraTuning(lora_rank=2)], ids=["full", "lora"])
@pytest.mark.usefixtures("can_compile")
def test_every_layer_is_compiled_and_no_name_changes(make_model: Any, tuning: Any) -> None:
    model = apply_tuning(make_model(), tuning)
    names = list(model.state_dict())
    assert compile_layers(model, CPU) is None
    layers = decoder_layers(model)
    assert len(layers) == 3
    assert all(map(is_compiled, layers))
    assert not is_compiled(model)
    assert list(model.state_dict()) == names


@pytest.mark.usefixtures("can_compile")
def test_attention_over_segments_stays_outside(make_model: Any) -> None:
    register_segments()
    before = AttentionInterface()[SEGMENTS]
    assert compile_layers(make_model(), CPU) is None
    after: Any = AttentionInterface()[SEGMENTS]
    assert after is not before
    assert after.__wrapped__ is before


@pytest.mark.usefixtures("can_compile")
def test_a_model_without_a_list_of_layers(make_model: Any) -> None:
    notice = compile_layers(make_model("gpt2"), CPU)
    assert str(notice) == "torch_compile: true -> false (GPT2LMHeadModel has no list of layers)"


def test_without_a_compiler_the_model_stays_as_it_is(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_layers, "missing_compiler", lambda kind: f"no {kind} compiler")
    model = make_model()
    notice = compile_layers(model, CPU)
    assert notice is not None
    assert notice.reason == "no cpu compiler"
    assert not any(map(is_compiled, decoder_layers(model)))


def test_what_compiling_takes(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_compiler("cpu") is None
    assert missing_compiler("cuda") is None
    assert missing_compiler("mps") == "luthier compiles for CPUs and CUDA GPUs, this device is mps"
    (compiler / "Python.h").unlink()
    assert "Python's headers are missing" in str(missing_compiler("cpu"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "triton is not installed" in str(missing_compiler("cuda"))


@pytest.mark.usefixtures("compiler")
def test_which_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(shutil, "which", looked.append)
    monkeypatch.setattr(compiled_layers, "_USUAL_CXX", ("g++",))
    assert "there is no compiler (g++): install one, or name it in CXX" in str(
        missing_compiler("cpu")
    )
    assert "(gcc or clang)" in str(missing_compiler("cuda"))
    monkeypatch.setenv("CXX", "my-c++")
    assert "(my-c++)" in str(missing_compiler("cpu"))
    assert looked == ["g++", "gcc", "clang", "my-c++"]


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler("cpu") is not None, reason="no compiler")
@pytest.mark.parametrize("tuning", [FullTuning(), LoraTuning(lora_rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_losses_and_gradients_are_the_same(make_model: Any, tuning: Any, recompute: bool) -> None:
    register_segments()
    batches = [packed([5, 7]), packed([3, 4, 9, 2]), padded(2, 6), padded(3, 9)]

    def run(*, compiled: bool) -> list[tuple[float, dict[str, torch.Tensor]]]:
        base = make_model(attn_implementation=SEGMENTS)
        if recompute:
            base.activation_checkpointing_enable({"use_reentrant": False})
        model = apply_tuning(base, tuning)
        if compiled:
            assert compile_layers(model, CPU) is None
        return [outcome(model, batch) for batch in batches]

    for (loss, gradients), (same_loss, same) in zip(
        run(compiled=False), run(compiled=True), strict=True
    ):
        assert same_loss == pytest.approx(loss, rel=1e-5)
        assert same.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-5)


def outcome(model: Any, inputs: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss in evaluation and training, and the gradients of training."""
    ids = inputs["input_ids"]

    def loss() -> torch.Tensor:
        logits = model(**inputs, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    model.eval()
    with torch.no_grad():
        evaluated = loss().item()
    model.train().zero_grad()
    trained = loss()
    trained.backward()
    assert trained.item() == pytest.approx(evaluated, rel=1e-5)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return trained.item(), gradients


def packed(lengths: list[int]) -> dict[str, Any]:
    positions = torch.cat([torch.arange(length) for length in lengths])
    ends = torch.tensor([0, *lengths]).cumsum(0)
    ids = (torch.arange(sum(lengths)) * 7 % 29 + 2)[None]
    return packed_inputs({"input_ids": ids, "position_ids": positions[None], "cu_seqlens": ends})


def padded(num_rows: int, num_tokens: int) -> dict[str, Any]:
    ids = torch.arange(num_rows * num_tokens).view(num_rows, num_tokens) * 5 % 29 + 2
    mask = torch.ones_like(ids)
    mask[0, num_tokens - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}
