"""QLoRA's settings in transformers' words, and what happens without bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from luthier.core.errors import MissingExtraError
from luthier.models.quantisation import quantisation_config, train_safely_quantised
from luthier.models.settings import QuantizationSettings

CPU = torch.device("cpu")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Say whether bitsandbytes is there, whatever this machine has."""
    there = {"bitsandbytes": True}
    real = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        if name == "bitsandbytes":
            return object() if there["bitsandbytes"] else None
        return real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return there


def test_plain_weights_need_nothing(installed: dict[str, bool]) -> None:
    installed["bitsandbytes"] = False
    assert quantisation_config(QuantizationSettings(), CPU, torch.bfloat16) == (None, None)


def test_implied_but_missing_is_said(installed: dict[str, bool]) -> None:
    installed["bitsandbytes"] = False
    settings = QuantizationSettings(bnb_4bit_quant_type="nf4")
    config, notice = quantisation_config(settings, CPU, torch.bfloat16)
    assert config is None
    assert str(notice) == (
        "bnb_4bit_quant_type: 4-bit base -> plain base "
        "(bitsandbytes is not installed: pip install 'luthier[bnb]')"
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_ordered_but_missing_is_an_error(installed: dict[str, bool], bits: Any) -> None:
    installed["bitsandbytes"] = False
    with pytest.raises(MissingExtraError, match=f"quantization_bit: {bits} needs the package bits"):
        quantisation_config(QuantizationSettings(quantization_bit=bits), CPU, torch.bfloat16)


@pytest.fixture
def config_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for transformers' class, which asks for the installed package's version."""
    import transformers

    monkeypatch.setattr(transformers, "BitsAndBytesConfig", dict)


@pytest.mark.usefixtures("installed", "config_class")
def test_settings_in_transformers_words() -> None:
    settings = QuantizationSettings(quantization_bit=4, bnb_4bit_quant_type="fp4")
    assert quantisation_config(settings, CPU, torch.bfloat16) == (
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "fp4",
            "bnb_4bit_compute_dtype": torch.bfloat16,
            "bnb_4bit_use_double_quant": True,
        },
        None,
    )
    named = QuantizationSettings(bnb_4bit_compute_dtype="float16", bnb_4bit_use_double_quant=False)
    config, _ = quantisation_config(named, CPU, torch.bfloat16)
    assert config is not None
    assert config["bnb_4bit_compute_dtype"] == torch.float16
    assert config["bnb_4bit_use_double_quant"] is False
    eight = quantisation_config(QuantizationSettings(quantization_bit=8), CPU, torch.float32)
    assert eight == ({"load_in_8bit": True}, None)


def test_names_are_those_of_transformers() -> None:
    import inspect

    from transformers import BitsAndBytesConfig

    known = inspect.signature(BitsAndBytesConfig.__init__).parameters
    assert {
        *("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_compute_dtype"),
        "bnb_4bit_use_double_quant",
    } <= set(known)


def test_repacking_for_inference_is_switched_off() -> None:
    class Linear4bit(torch.nn.Linear):
        support_avx512bf16_for_cpu = True

    plain = torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(Linear4bit(2, 2), torch.nn.Sequential(Linear4bit(2, 2), plain))
    train_safely_quantised(model)
    modules: list[Any] = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert [module.support_avx512bf16_for_cpu for module in modules] == [False, False]
    assert not hasattr(plain, "support_avx512bf16_for_cpu")
