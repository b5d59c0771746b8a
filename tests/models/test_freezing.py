"""Layers and modules that are trained whole are those that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.models.adapters import apply_tuning
from luthier.models.settings import FreezeTuning

Make = Callable[..., Any]


def trained(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def layers_of(names: set[str]) -> set[int]:
    return {int(name.split(".layers.")[1].split(".")[0]) for name in names if ".layers." in name}


@pytest.mark.parametrize(
    ("count", "layers"),
    [(1, {2}), (2, {1, 2}), (3, {0, 1, 2}), (-1, {0}), (-2, {0, 1}), (-3, {0, 1, 2})],
)
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_freeze_trains_the_last_or_the_first_layers(
    make_model: Make, kind: str, count: int, layers: set[int]
) -> None:
    model = apply_tuning(make_model(kind), FreezeTuning(freeze_trainable_layers=count))
    expected = {
        name
        for name, _ in model.named_parameters()
        if any(f".layers.{layer}." in name for layer in layers)
    }
    assert trained(model) == expected
    assert layers_of(trained(model)) == layers


def test_freeze_knows_gpt2s_layers(make_model: Make) -> None:
    model = apply_tuning(make_model("gpt2"), FreezeTuning(freeze_trainable_layers=1))
    assert trained(model) == {n for n, _ in model.named_parameters() if ".h.2." in n}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("lm_head", {"lm_head.weight"}),
        ("norm", {"model.norm.weight"}),
        ("model.norm", {"model.norm.weight"}),
        ("embed_tokens,norm", {"model.embed_tokens.weight", "model.norm.weight"}),
    ],
)
def test_freeze_trains_modules_outside_the_layers(
    make_model: Make, extra: str, expected: set[str]
) -> None:
    tuning = FreezeTuning(freeze_trainable_layers=1, freeze_extra_modules=extra)
    model = apply_tuning(make_model(), tuning)
    assert {name for name in trained(model) if ".layers." not in name} == expected
    assert layers_of(trained(model)) == {2}


@pytest.mark.parametrize("extra", ["lm_head", "embed_tokens", "embed_tokens,lm_head"])
def test_a_tied_head_is_trained_under_either_name(make_model: Make, extra: str) -> None:
    tuning = FreezeTuning(freeze_trainable_layers=1, freeze_extra_modules=extra)
    model = apply_tuning(make_model("gemma3"), tuning)
    outside = {name for name in trained(model) if ".layers." not in name}
    assert outside == {"model.embed_tokens.weight"}
    assert model.lm_head.weight.requires_grad


def test_freeze_names_an_unknown_module(make_model: Make) -> None:
    tuning = FreezeTuning(freeze_extra_modules="lmhead")
    with pytest.raises(SettingsError, match="freeze_extra_modules names lmhead, and") as error:
        apply_tuning(make_model(), tuning)
    assert error.value.mend == "Did you mean lm_head? It has: embed_tokens, lm_head, norm."


@pytest.mark.parametrize("count", [4, -4])
def test_freeze_counts_the_layers(make_model: Make, count: int) -> None:
    with pytest.raises(SettingsError, match=f"is {count}, and the model has 3 layers") as error:
        apply_tuning(make_model(), FreezeTuning(freeze_trainable_layers=count))
    assert error.value.mend == "Give a number from -3 to 3."


def test_freeze_trains_chosen_layers(make_model: Make) -> None:
    model = apply_tuning(make_model(), FreezeTuning(freeze_chosen_layers=[0, 2]))
    assert layers_of(trained(model)) == {0, 2}
    assert all(".layers." in name for name in trained(model))
    with pytest.raises(SettingsError, match="names layer 3, and the model has 3 layers"):
        apply_tuning(make_model(), FreezeTuning(freeze_chosen_layers=[0, 3]))


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("mlp", {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
        ("q_proj,mlp.up_proj", {"self_attn.q_proj", "mlp.up_proj"}),
        ("input_layernorm", {"input_layernorm"}),
    ],
)
def test_freeze_trains_modules_in_the_layers(
    make_model: Make, modules: str, expected: set[str]
) -> None:
    tuning = FreezeTuning(freeze_chosen_layers=[1], freeze_trainable_modules=modules)
    model = apply_tuning(make_model(), tuning)
    assert trained(model) == {f"model.layers.1.{name}.weight" for name in expected}


def test_freeze_trains_modules_in_gpt2s_layers(make_model: Make) -> None:
    tuning = FreezeTuning(freeze_trainable_layers=1, freeze_trainable_modules="mlp")
    model = apply_tuning(make_model("gpt2"), tuning)
    assert trained(model) == {n for n, _ in model.named_parameters() if ".h.2.mlp." in n}


def test_freeze_names_an_unknown_module_of_a_layer(make_model: Make) -> None:
    tuning = FreezeTuning(freeze_trainable_modules="qproj")
    with pytest.raises(SettingsError, match="freeze_trainable_modules names qproj, and") as error:
        apply_tuning(make_model(), tuning)
    assert str(error.value.mend).startswith("Did you mean q_proj? It has: down_proj, ")
