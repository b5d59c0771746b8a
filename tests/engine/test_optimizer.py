"""Which parameters decay, and with what the optimiser is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.core.errors import SettingsError
from luthier.engine.optimizer import build_optimizer, parameter_groups, set_learning_rate
from luthier.engine.settings import AdafactorOptimizer, AdamWOptimizer

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def tiny(kind: str) -> Any:
    import transformers as hf

    if kind == "qwen2":  # biases in the attention
        return hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES))
    if kind == "gemma3":  # norms of queries and keys, norms after each block, a tied head
        config = hf.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8)
        return hf.Gemma3ForCausalLM(config)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("lora", [False, True])
def test_groups_are_the_trainers(kind: str, lora: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    model = tiny(kind)
    if lora:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    arguments = TrainingArguments(str(tmp_path), weight_decay=0.1, use_cpu=True, report_to="none")
    theirs = Trainer(model, arguments).create_optimizer().param_groups
    ours = parameter_groups(model, weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}

    def named(groups: Any) -> list[tuple[float, set[str]]]:
        return [(g["weight_decay"], {names[id(p)] for p in g["params"]}) for g in groups]

    assert named(ours) == named(theirs)
    assert [decay for decay, _ in named(ours)] == [0.1, 0.0]
    assert bool(named(ours)[1][1]) == (not lora)


def test_adamw_is_fused_and_set_as_asked(make_model: Callable[..., Any]) -> None:
    settings = AdamWOptimizer(adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    optimizer = build_optimizer(make_model(), settings, learning_rate=1e-3, weight_decay=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert group["fused"] is True
        assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.8, 0.95), 1e-6)


def test_adafactor_follows_the_runs_rate(make_model: Callable[..., Any]) -> None:
    from transformers.optimization import Adafactor

    optimizer = build_optimizer(
        make_model(), AdafactorOptimizer(), learning_rate=1e-3, weight_decay=0.1
    )
    assert isinstance(optimizer, Adafactor)
    set_learning_rate(optimizer, 0.25)
    for group in optimizer.param_groups:
        assert group["lr"] == 0.25
        assert not group["relative_step"]
        assert not group["scale_parameter"]


def test_frozen_parameters_are_in_no_group(make_model: Callable[..., Any]) -> None:
    model = make_model(lora=True)
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    trained = [p for name, p in model.named_parameters() if "lora_" in name]
    assert {id(p) for p in grouped} == {id(p) for p in trained}


def test_nothing_to_train_is_an_error(make_model: Callable[..., Any]) -> None:
    model = make_model()
    model.requires_grad_(False)
    with pytest.raises(SettingsError, match="no parameter of the model is trainable"):
        build_optimizer(model, AdamWOptimizer(), learning_rate=1e-3, weight_decay=0.0)
