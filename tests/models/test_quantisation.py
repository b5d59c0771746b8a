"""QLoRA's settings in transformers' words, and what happens without bitsandbytes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import MissingExtraError
from luthier.models.adapters import apply_tuning, count_parameters
from luthier.models.load import load_model
from luthier.models.quantisation import quantisation_config, train_safely_quantised
from luthier.models.settings import LoraTuning, ModelSettings, QuantizationSettings

CPU = torch.device("cpu")
IDS = torch.arange(24).reshape(2, 12) + 3

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'luthier[bnb]'",
)


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


@pytest.fixture
def load_quantised(make_model: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    make_model(hidden_size=64, intermediate_size=128).save_pretrained(str(tmp_path))

    def load(**settings: Any) -> Any:
        return load_model(
            ModelSettings(model_name_or_path=str(tmp_path)),
            QuantizationSettings.model_validate(settings),
            device=CPU,
            dtype=torch.float32,
        ).model

    return load


def gradients_of(base: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    tuned = apply_tuning(base, LoraTuning())
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.train()
    tuned(IDS, labels=IDS).loss.backward()
    return {n: p.grad for n, p in tuned.named_parameters() if p.grad is not None}


@needs_bitsandbytes
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("twice", [True, False])
def test_gradients_are_those_of_the_expanded_base_also_after_an_evaluation(
    load_quantised: Callable[..., Any], quant_type: str, twice: bool
) -> None:
    settings = {"bnb_4bit_quant_type": quant_type, "bnb_4bit_use_double_quant": twice}
    expected = gradients_of(load_quantised(**settings).dequantize(torch.float32))
    base = load_quantised(**settings)
    before = {n: p.clone() for n, p in base.named_parameters()}
    with torch.no_grad():
        base.eval()(IDS)
    assert all(torch.equal(before[n], p) for n, p in base.named_parameters())
    found = gradients_of(base)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        base.eval()(IDS)
    again = base.dequantize(torch.float32)
    weight = again.model.layers[0].mlp.up_proj.base_layer.weight
    expanded = load_quantised(**settings).dequantize(torch.float32)
    assert torch.equal(weight, expanded.model.layers[0].mlp.up_proj.weight)


@needs_bitsandbytes
@pytest.mark.parametrize("bits", [4, 8])
def test_layers_are_quantised_and_head_and_embeddings_are_not(
    load_quantised: Callable[..., Any], bits: int
) -> None:
    base, plain = load_quantised(quantization_bit=bits), load_quantised()
    kinds = {n: type(m).__name__ for n, m in base.named_modules() if hasattr(m, "weight")}
    assert kinds["model.layers.0.mlp.up_proj"] == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    assert kinds["lm_head"] == "Linear"
    assert kinds["model.embed_tokens"] == "Embedding"
    assert count_parameters(base).total == count_parameters(plain).total
