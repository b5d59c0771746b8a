"""Heads are found and proved in real architectures, and left alone where they can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from luthier.objectives.find_head import find_head
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., dict[str, torch.Tensor]]
RULES = {
    "Llama": (1.0, None),
    "Qwen3": (1.0, None),
    "Gemma2": (1.0, 2.0),
    "Cohere": (0.25, None),
    "Granite": (0.125, None),
    "HyperCLOVAX": (0.5, None),
    "GPTNeoX": (1.0, None),
    "Phi": (1.0, None),
}


@pytest.mark.parametrize("family", RULES)
def test_the_rule_of_each_family_is_found(
    family_model: Callable[[str], Any], family: str, random_batch: Make
) -> None:
    model = family_model(family)
    head, notice = find_head(model)
    assert notice is None
    assert head is not None
    assert (head.scale, head.softcap) == RULES[family]
    assert head.trained


@pytest.mark.parametrize("family", RULES)
def test_the_loss_from_hidden_states_is_that_of_the_logits(
    family_model: Callable[[str], Any], family: str, random_batch: Make
) -> None:
    model, batch = family_model(family), random_batch()
    batch["loss_weights"] = torch.rand(batch["labels"].shape)
    head, _ = find_head(model)
    assert head is not None
    results = []
    for objective in (SupervisedFineTuning(0.1), SupervisedFineTuning(0.1, head)):
        model.zero_grad()
        loss = objective(model, batch)
        loss.total.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((loss, gradients))
    (plain, by_logits), (ours, by_hidden) = results
    assert float(ours.total) == pytest.approx(float(plain.total), rel=1e-5)
    assert float(ours.weight) == pytest.approx(float(plain.weight), rel=1e-6)
    assert (int(ours.num_tokens), int(ours.num_correct)) == (
        int(plain.num_tokens),
        int(plain.num_correct),
    )
    # Of tied weights, too: the gradient of the embedding and that of the head in one.
    torch.testing.assert_close(by_hidden, by_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Cohere", "Granite"])
@pytest.mark.parametrize("kind", ["autocast", "bfloat16"])
def test_low_precision_hides_neither_softcap_nor_scale(
    family_model: Callable[[str], Any], family: str, kind: str
) -> None:
    model = family_model(family)
    if kind == "bfloat16":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        head, _ = find_head(model)
    assert head is not None
    assert (head.scale, head.softcap) == RULES[family]


def test_a_softcap_is_found_although_fresh_weights_give_small_logits() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.001,
    )
    head, _ = find_head(Gemma2ForCausalLM(config))
    assert head is not None
    assert head.softcap == 30.0


class Shifted(torch.nn.Module):
    """A linear layer that isn't one."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = layer.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.weight.t() + 1


def test_an_unknown_head_takes_the_plain_way_with_a_notice(
    tiny_model: Any, random_batch: Make
) -> None:
    tiny_model.lm_head = Shifted(tiny_model.lm_head)
    head, notice = find_head(tiny_model)
    assert head is None
    assert str(notice) == (
        "head: loss from hidden states -> loss from full logits "
        "(its head is a Shifted, not a plain linear layer)"
    )
    assert SupervisedFineTuning(head=head)(tiny_model, random_batch()).total > 0


def test_what_a_model_does_beside_its_head_is_noticed(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = type(tiny_model).forward

    def halved(self: Any, *args: Any, **options: Any) -> Any:
        output = forward(self, *args, **options)
        output.logits = output.logits / 2
        return output

    monkeypatch.setattr(type(tiny_model), "forward", halved)
    head, notice = find_head(tiny_model)
    assert head is None
    assert "does more to its logits" in str(notice)


def test_what_a_model_does_before_its_decoder_is_noticed(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = type(tiny_model).forward

    def other_ids(self: Any, input_ids: Any, **options: Any) -> Any:
        return forward(self, input_ids=input_ids + 1, **options)

    monkeypatch.setattr(type(tiny_model), "forward", other_ids)
    head, notice = find_head(tiny_model)
    assert head is None
    assert "run alone gives other hidden states" in str(notice)


def test_a_projection_between_decoder_and_head_is_noticed(tiny_model: Any) -> None:
    tiny_model.lm_head = torch.nn.Linear(16, 61)
    tiny_model.model.register_forward_hook(lambda _m, _i, output: output)

    def narrow(_module: Any, args: Any) -> Any:
        return (args[0][..., :16],)

    tiny_model.lm_head.register_forward_pre_hook(narrow)
    head, notice = find_head(tiny_model)
    assert head is None
    assert "no hidden states that the head could take" in str(notice)


def test_a_module_without_head_is_told_so() -> None:
    head, notice = find_head(torch.nn.Linear(2, 2))
    assert head is None
    assert "Linear names no decoder and no head" in str(notice)


def test_an_offloaded_head_is_told_so(tiny_model: Any) -> None:
    tiny_model.lm_head = torch.nn.Linear(32, 61, device="meta")
    head, notice = find_head(tiny_model)
    assert head is None
    assert "its head is offloaded" in str(notice)


def test_prompt_tuning_takes_the_plain_way(tiny_model: Any) -> None:
    from peft import PromptTuningConfig, get_peft_model

    tuned = get_peft_model(
        tiny_model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    head, notice = find_head(tuned)
    assert head is None
    assert "changes the input, not the layers" in str(notice)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_an_adapter_that_is_more_than_low_rank_takes_the_plain_way(
    tiny_model: Any, options: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model

    if "lora_bias" in options:
        tiny_model.lm_head = torch.nn.Linear(32, 61, bias=True)
    tuned = get_peft_model(
        tiny_model,
        LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head"], **options),
    )
    head, notice = find_head(tuned)
    assert head is None
    assert "more than a low-rank product" in str(notice)


def test_finding_changes_neither_modes_nor_random_numbers(tiny_model: Any) -> None:
    tiny_model.train()
    tiny_model.model.layers[0].eval()
    modes = [module.training for module in tiny_model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    head, _ = find_head(tiny_model)
    assert head is not None
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in tiny_model.modules()] == modes
    assert not tiny_model.model._forward_hooks
