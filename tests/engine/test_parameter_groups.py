"""Which parameter gets which learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import SettingsError
from luthier.engine.parameter_groups import lr_scales, parameter_groups
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def tiny(kind: str, **values: Any) -> Any:
    import transformers as hf

    if kind == "qwen2":  # biases in the attention
        return hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, **values))
    if kind == "gemma3":  # norms of queries and keys, norms after each block, a tied head
        config = hf.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8, **values)
        return hf.Gemma3ForCausalLM(config)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, **values))


def with_lora(model: Any, **values: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules="all-linear", **values))


def names_of(model: torch.nn.Module, group: Any) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in group["params"]}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("lora", [False, True])
def test_groups_are_the_trainers(kind: str, lora: bool, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = tiny(kind)
    if lora:
        model = with_lora(model)
    arguments = TrainingArguments(str(tmp_path), weight_decay=0.1, use_cpu=True, report_to="none")
    theirs = Trainer(model, arguments).create_optimizer().param_groups
    ours = parameter_groups(model, weight_decay=0.1)

    def named(groups: Any) -> list[tuple[float, set[str]]]:
        return [(g["weight_decay"], names_of(model, g)) for g in groups]

    assert named(ours) == named(theirs)
    assert [decay for decay, _ in named(ours)] == [0.1, 0.0]
    assert bool(named(ours)[1][1]) == (not lora)


def test_frozen_parameters_are_in_no_group(make_model: Callable[..., Any]) -> None:
    model = make_model(lora=True)
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    trained = [p for name, p in model.named_parameters() if "lora_" in name]
    assert {id(p) for p in grouped} == {id(p) for p in trained}


@pytest.mark.parametrize("values", [{}, {"use_dora": True}, {"modules_to_save": ["norm"]}])
def test_lora_plus_has_pefts_groups(values: dict[str, Any]) -> None:
    from peft.optimizers import create_loraplus_optimizer

    model = with_lora(tiny("llama"), **values)
    theirs = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8.0, loraplus_weight_decay=0.1
    )
    scales = lr_scales(model, LoraTuning(loraplus_lr_ratio=8.0))
    ours = parameter_groups(model, 0.1, scales)

    def by_name(groups: Any, value: Callable[[Any], float]) -> dict[str, float]:
        return {n: value(g) for g in groups for n in names_of(model, g)}

    rates = by_name(ours, lambda g: 1e-3 * g.get("lr_scale", 1.0))
    assert rates == by_name(theirs.param_groups, lambda g: g["lr"])
    assert set(rates.values()) == {1e-3, 8e-3}
    # peft lets vectors decay unless they are named bias; here they never do.
    vectors = {n for n, p in model.named_parameters() if p.ndim == 1}
    decays = by_name(ours, lambda g: g["weight_decay"])
    their_decays = by_name(theirs.param_groups, lambda g: g["weight_decay"])
    assert all(decays[n] == (0.0 if n in vectors else their_decays[n]) for n in decays)


@pytest.mark.parametrize("tied", [False, True])
def test_each_layer_learns_slower_than_the_one_above_it(tied: bool) -> None:
    model = tiny("llama", tie_word_embeddings=tied)
    scales = lr_scales(model, FullTuning(layerwise_lr_decay=0.5))
    groups = parameter_groups(model, 0.1, scales)
    found = {
        name: group.get("lr_scale", 1.0) for group in groups for name in names_of(model, group)
    }
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, scale in found.items():
        if "layers.1." in name:
            assert scale == 0.5
        elif "layers.0." in name:
            assert scale == 0.25
        else:
            assert scale == (0.125 if "embed_tokens" in name else 1.0), name
    assert ("lm_head.weight" in found) != tied
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0] * 4


def test_layers_of_a_partly_frozen_model() -> None:
    model = tiny("llama")
    model.model.embed_tokens.requires_grad_(False)
    groups = parameter_groups(model, 0.0, lr_scales(model, FreezeTuning(layerwise_lr_decay=0.5)))
    assert [g.get("lr_scale", 1.0) for g in groups] == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]


def test_without_the_settings_all_learn_alike() -> None:
    model = tiny("llama")
    assert lr_scales(model, FullTuning()) == {}
    assert lr_scales(with_lora(model), LoraTuning()) == {}


def test_a_model_without_layers_has_no_layerwise_rates() -> None:
    with pytest.raises(SettingsError, match="Linear has no numbered layers"):
        lr_scales(torch.nn.Linear(2, 2), FullTuning(layerwise_lr_decay=0.5))
