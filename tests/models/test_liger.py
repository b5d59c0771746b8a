"""Liger's kernels: where they are used, where not and what is said, and that nothing changes."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from luthier.core.errors import MissingExtraError
from luthier.models.liger import use_liger_kernels

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Stand in for Liger's package, and note what is asked of it."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def llama(*, rope: bool = True, fused_linear_cross_entropy: bool = True, model: Any) -> None:
        asked.append(("llama", {"fused": fused_linear_cross_entropy, "rope": rope, "on": model}))

    def gemma(*, cross_entropy: bool = True, model: Any) -> None:
        asked.append(("gemma", {"cross_entropy": cross_entropy, "on": model}))

    found: Any = ModuleType("liger_kernel.transformers.monkey_patch")
    found.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": llama, "gemma": gemma}
    names = ("liger_kernel", "liger_kernel.transformers", found.__name__)
    for name in names:
        module: Any = found if name == found.__name__ else ModuleType(name)
        module.__path__ = []
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def test_a_cpu_runs_without_them_and_says_so(make_model: Any, liger: list[Any]) -> None:
    notice = use_liger_kernels(make_model(), CPU)
    assert str(notice) == (
        "use_liger_kernel: true -> false (Liger's kernels need a CUDA GPU, this device is cpu)"
    )
    assert liger == []


def test_what_is_missing_comes_with_its_command(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"use_liger_kernel: true needs (.|\n)*'luthier\[liger\]'"
    ):
        use_liger_kernels(make_model(), GPU)


def test_all_but_the_loss_is_asked_for(make_model: Any, liger: list[Any]) -> None:
    llama, gemma = make_model(), make_model("gemma")
    assert use_liger_kernels(llama, GPU) is None
    assert use_liger_kernels(gemma, GPU) is None
    assert liger == [
        ("llama", {"fused": False, "rope": True, "on": llama}),
        ("gemma", {"cross_entropy": False, "on": gemma}),
    ]


def test_a_model_that_liger_does_not_know(make_model: Any, liger: list[Any]) -> None:
    notice = use_liger_kernels(make_model("gpt2"), GPU)
    assert notice is not None
    assert notice.reason == "Liger has no kernels for models of type gpt2"
    assert liger == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma"])
def test_loss_and_gradients_are_the_same(make_model: Any, kind: str) -> None:
    pytest.importorskip("liger_kernel")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8}
    ids = torch.arange(2, 26, device=GPU)[None]

    def loss_and_gradients(*, with_liger: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model = make_model(kind, **sizes).to(GPU)
        if with_liger:
            assert use_liger_kernels(model, GPU) is None
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return loss.detach(), {n: p.grad for n, p in model.named_parameters()}

    # Liger changes transformers' module for good: the plain model goes first.
    loss, gradients = loss_and_gradients(with_liger=False)
    same_loss, same_gradients = loss_and_gradients(with_liger=True)
    torch.testing.assert_close(same_loss, loss, rtol=1e-5, atol=1e-5)
    assert same_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[name], gradient, rtol=1e-3, atol=1e-5)
