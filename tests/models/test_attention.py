"""Which kernel is used, by what was asked and what is there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import transformers as hf

from luthier.models.attention import choose_attention

SEGMENTS = "luthier_segments"
NO_PACKAGE = "the package flash-attn is not installed"
NO_GPU = "FlashAttention needs a CUDA GPU, this device is cpu"


def pretend_installed(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        if name == "flash_attn":
            return object() if installed else None
        return found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


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


@pytest.mark.parametrize(
    ("asked", "device", "installed", "name", "reason"),
    [
        ("auto", "cpu", False, SEGMENTS, None),
        ("sdpa", "cuda", True, SEGMENTS, None),
        ("eager", "cpu", False, SEGMENTS, "packed documents are computed one by one"),
        ("fa2", "cuda", True, "flash_attention_2", None),
        ("fa2", "cuda", False, SEGMENTS, NO_PACKAGE),
        ("fa2", "cpu", True, SEGMENTS, NO_GPU),
    ],
)
def test_choice_for_packed_rows(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: str,
    installed: bool,
    name: str,
    reason: str | None,
) -> None:
    pretend_installed(monkeypatch, installed)
    used, notice = choose_attention(asked, device, packed=True, config=hf.LlamaConfig())
    assert used == name
    assert (notice is None) == (reason is None)
    if notice is not None and reason is not None:
        assert (notice.asked, notice.used) == (asked, "sdpa")
        assert notice.reason.startswith(reason)


def test_the_name_is_known_to_transformers() -> None:
    name, _ = choose_attention("auto", "cpu", packed=True, config=hf.LlamaConfig())
    assert name in hf.AttentionInterface()
    assert name in hf.AttentionMaskInterface()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (hf.GptOssConfig(), "transformers has no FlashAttention 2 for this model"),
        (hf.Llama4TextConfig(), "FlashAttention knows no chunked attention"),
    ],
)
def test_flash_attention_is_replaced_where_it_would_be_wrong(
    monkeypatch: pytest.MonkeyPatch, config: Any, reason: str
) -> None:
    pretend_installed(monkeypatch, True)
    used, notice = choose_attention("fa2", "cuda", packed=True, config=config)
    assert used == SEGMENTS
    assert notice is not None
    assert notice.reason == reason


def test_a_model_that_sdpa_can_not_compute_gets_eager() -> None:
    assert choose_attention("auto", "cpu", config=hf.Gemma2Config()) == ("eager", None)
    used, notice = choose_attention("sdpa", "cpu", config=hf.Gemma2Config())
    assert used == "eager"
    assert str(notice) == (
        "flash_attn: sdpa -> eager (the model's attention is more than SDPA can)"
    )
    assert choose_attention("sdpa", "cpu", config=hf.LlamaConfig()) == ("sdpa", None)
    # By segments it can be computed: nothing to say.
    packed = choose_attention("sdpa", "cpu", packed=True, config=hf.Gemma2Config())
    assert packed == (SEGMENTS, None)


def test_packed_rows_of_a_model_that_can_not_have_them_are_refused() -> None:
    with pytest.raises(ValueError, match="this model's rows can't be packed: the model takes no"):
        choose_attention("auto", "cpu", packed=True, config=hf.MambaConfig())
    with pytest.raises(ValueError, match="packed rows need the model's config"):
        choose_attention("auto", "cpu", packed=True)
