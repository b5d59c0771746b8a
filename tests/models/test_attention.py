"""Which kernel is used, by what was asked and what is there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from luthier.models.attention import choose_attention


@pytest.mark.parametrize(
    ("asked", "device", "installed", "used", "reason"),
    [
        ("auto", "cuda", True, "sdpa", None),
        ("auto", "cpu", False, "sdpa", None),
        ("sdpa", "mps", False, "sdpa", None),
        ("eager", "cuda", True, "eager", None),
        ("fa2", "cuda", True, "flash_attention_2", None),
        ("fa2", "cuda", False, "sdpa", "the package flash-attn is not installed"),
        ("fa2", "cpu", True, "sdpa", "FlashAttention needs a CUDA GPU, this device is cpu"),
        ("fa2", "mps", False, "sdpa", "FlashAttention needs a CUDA GPU, this device is mps"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: str,
    installed: bool,
    used: str,
    reason: str | None,
) -> None:
    def find_spec(name: str) -> Any:
        assert name == "flash_attn"
        return object() if installed else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    name, notice = choose_attention(asked, device)
    assert name == used
    if reason is None:
        assert notice is None
    else:
        assert notice is not None
        assert (notice.setting, notice.asked, notice.used) == ("flash_attn", "fa2", "sdpa")
        assert notice.reason.startswith(reason)
