"""The number type by what the device has; capabilities are put in by hand, no GPU is needed."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import torch

from luthier.engine import precision
from luthier.engine.precision import (
    Precision,
    choose_device,
    choose_precision,
    cpu_bf16_features,
    has_native_bf16,
)
from luthier.engine.settings import TrainingSettings

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("asked", "device", "native", "used", "said"),
    [
        ({}, CPU, True, "bf16", None),
        ({}, CPU, False, "fp32", None),
        ({}, CUDA, True, "bf16", None),
        ({}, CUDA, False, "fp32", None),
        ({}, MPS, False, "fp32", None),
        ({"bf16": True}, CPU, True, "bf16", None),
        ({"bf16": True}, CUDA, True, "bf16", None),
        ({"bf16": False}, CPU, True, "fp32", None),
        ({"bf16": False}, CUDA, True, "fp32", None),
        ({"bf16": True}, CPU, False, "bf16", "this cpu emulates bfloat16"),
        ({"bf16": True}, CUDA, False, "fp32", "this GPU has no native bfloat16"),
        ({"fp16": True}, CPU, True, "bf16", "float16 training needs a CUDA GPU"),
        ({"fp16": True}, CPU, False, "fp32", "float16 training needs a CUDA GPU"),
        ({"fp16": True}, MPS, False, "fp32", "float16 training needs a CUDA GPU"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    device: torch.device,
    native: bool,
    used: str,
    said: str | None,
) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: native)
    chosen, notice = choose_precision(TrainingSettings(**asked), device)
    assert (chosen.name, chosen.device_type, chosen.scaler) == (used, device.type, None)
    if said is None:
        assert notice is None
    else:
        assert notice is not None
        assert said in notice.reason
        assert notice.used == used
        assert notice.setting == notice.asked == next(iter(asked))


def test_fp16_on_cuda_has_a_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: made.append(device) or "scaler")
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: True)
    chosen, notice = choose_precision(TrainingSettings(fp16=True), CUDA)
    assert (chosen.name, chosen.scaler, notice, made) == ("fp16", "scaler", None, ["cuda"])


@pytest.mark.parametrize(
    ("machine", "found", "expected"),
    [
        ("x86_64", {"avx512_bf16": True, "amx_bf16": True}, ["avx512_bf16", "amx_bf16"]),
        ("AMD64", {"avx512_bf16": False, "amx_bf16": True}, ["amx_bf16"]),
        ("x86_64", {"avx2": True}, []),
        ("aarch64", {"avx512_bf16": True}, []),
    ],
)
def test_cpu_features(
    monkeypatch: pytest.MonkeyPatch, machine: str, found: dict[str, bool], expected: list[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert cpu_bf16_features() == expected
    assert has_native_bf16(CPU) is bool(expected)


def test_names_of_the_features_are_torchs() -> None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("torch lists these features on x86 only")
    assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities())


@pytest.mark.parametrize("native", [False, True])
def test_gpus_are_asked_without_emulation(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    asked = []
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: asked.append(including_emulation) or native,
    )
    assert has_native_bf16(CUDA) is native
    assert asked == [False]
    assert has_native_bf16(MPS) is False


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda:1"), (False, True, "mps"), (False, False, "cpu")],
)
def test_device(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert str(choose_device()) == expected


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float32, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")],
)
def test_autocast_computes_in_the_type(dtype: torch.dtype, name: str) -> None:
    chosen = Precision(dtype, "cpu")
    assert chosen.name == name
    weight = torch.nn.Parameter(torch.randn(4, 4))
    with chosen.autocast():
        product = torch.randn(2, 4) @ weight
    assert product.dtype == dtype
    chosen.backward(product.float().sum())
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_scaler_is_scaled_unscaled_and_updated() -> None:
    calls: list[str] = []

    class Scaler:
        def scale(self, loss: torch.Tensor) -> torch.Tensor:
            return loss * 8

        def unscale_(self, optimizer: Any) -> None:
            calls.append("unscale")

        def step(self, optimizer: Any) -> None:
            calls.append("step")

        def update(self) -> None:
            calls.append("update")

    scaler: Any = Scaler()
    chosen = Precision(torch.float16, "cuda", scaler)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    chosen.backward(weight.sum())
    assert weight.grad is not None
    assert weight.grad.tolist() == [8.0, 8.0]
    chosen.unscale(optimizer)
    chosen.step(optimizer)
    assert calls == ["unscale", "step", "update"]


def test_without_a_scaler_the_optimizer_steps() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    chosen = Precision(torch.float32, "cpu")
    chosen.backward(weight.sum())
    chosen.unscale(optimizer)
    chosen.step(optimizer)
    assert weight.tolist() == [0.0, 0.0]
