"""LoRA layers that share their products: peft's numbers, names and switches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from luthier.models import lora_linear
from luthier.models.lora_linear import SharedLoraLinear, share_lora_products

IDS = torch.arange(3, 15)[None]
Adapt = Callable[..., tuple[Any, Any]]


@pytest.fixture
def adapted(make_model: Callable[..., Any]) -> Adapt:
    """Return a function that gives the same LoRA model twice: peft's own, and shared."""

    def make(kind: str = "llama", **options: Any) -> tuple[Any, Any]:
        sizes = options.pop("sizes", {})
        pair: list[Any] = []
        for _ in range(2):
            torch.manual_seed(0)
            base = make_model(kind, num_hidden_layers=2, **sizes)
            settings: dict[str, Any] = {
                "r": 4,
                "lora_alpha": 6,
                "target_modules": "all-linear",
                **options,
            }
            pair.append(get_peft_model(base, LoraConfig(init_lora_weights=False, **settings)))
        pair[1].load_state_dict(pair[0].state_dict())
        share_lora_products(pair[1])
        return pair[0], pair[1]

    return make


def loss_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(1)
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    usual = lora_linear.lora_linears

    def count(x: torch.Tensor, layers: Any) -> Any:
        sizes.append(len(layers))
        return usual(x, layers)

    monkeypatch.setattr(lora_linear, "lora_linears", count)
    return sizes


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"up_proj": 3}}),
        ("llama", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"use_rslora": True}),
        ("llama", {"sizes": {"attention_bias": True}}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("gemma", {}),
    ],
)
def test_loss_and_gradients_are_those_of_peft(
    adapted: Adapt, kind: str, options: dict[str, Any]
) -> None:
    usual, shared = adapted(kind, **options)
    expected_loss, expected = loss_and_gradients(usual)
    loss, found = loss_and_gradients(shared)
    torch.testing.assert_close(loss, expected_loss)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_five_calls_serve_seven_layers(adapted: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shared = adapted()
    sizes = count_calls(monkeypatch)
    shared(IDS)
    assert sizes == [3, 1, 2, 1] * 2


def test_names_and_files_are_those_of_peft(adapted: Adapt, tmp_path: Path) -> None:
    usual, shared = adapted()
    assert list(shared.state_dict()) == list(usual.state_dict())
    shared.save_pretrained(tmp_path)
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(usual.unload(), tmp_path)
        torch.testing.assert_close(loaded(IDS).logits, shared(IDS).logits)


def test_the_adapter_can_be_turned_off_and_merged(adapted: Adapt) -> None:
    usual, shared = adapted()
    with torch.no_grad():
        with usual.disable_adapter(), shared.disable_adapter():
            assert torch.equal(shared(IDS).logits, usual(IDS).logits)
        adapted_logits = shared(IDS).logits
        shared.merge_adapter()
        torch.testing.assert_close(shared(IDS).logits, adapted_logits, rtol=1e-4, atol=1e-5)
        shared.unmerge_adapter()
        plain = shared.merge_and_unload()
        torch.testing.assert_close(plain(IDS).logits, adapted_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"lora_dropout": 0.3}, {"lora_bias": True}]
)
def test_what_is_no_plain_lora_stays_with_peft(
    adapted: Adapt, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    usual, shared = adapted(**options)
    usual.train()
    shared.train()
    sizes = count_calls(monkeypatch)
    expected_loss, expected = loss_and_gradients(usual)
    loss, found = loss_and_gradients(shared)
    assert sizes == []
    assert torch.equal(loss, expected_loss)
    torch.testing.assert_close(found, expected)


def test_dropout_is_none_of_evaluation(adapted: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, shared = adapted(lora_dropout=0.3)
    sizes = count_calls(monkeypatch)
    torch.testing.assert_close(shared.eval()(IDS).logits, usual.eval()(IDS).logits)
    assert sizes


def test_a_call_with_another_input_computes_again(adapted: Adapt) -> None:
    _, shared = adapted()
    attention = shared.base_model.model.model.layers[0].self_attn
    width = attention.q_proj.in_features
    one, other = torch.randn(2, 3, width).unbind()
    alone = {name: getattr(attention, name)(other) for name in ("v_proj", "q_proj")}
    attention.q_proj(one)
    for name in ("v_proj", "q_proj", "q_proj"):
        torch.testing.assert_close(getattr(attention, name)(other), alone[name])
    torch.testing.assert_close(attention.k_proj(one), attention.k_proj(one.clone()))


def test_under_autocast_it_is_as_near_to_float32_as_peft(adapted: Adapt) -> None:
    usual, shared = adapted(sizes={"hidden_size": 64, "intermediate_size": 128})
    _, exact = loss_and_gradients(usual)
    with torch.autocast("cpu", torch.bfloat16):
        _, expected = loss_and_gradients(usual)
        _, found = loss_and_gradients(shared)

    def error(gradients: dict[str, torch.Tensor]) -> float:
        parts = [(gradients[n] - g).norm() / g.norm() for n, g in exact.items()]
        return float(torch.stack(parts).mean())

    assert all(g.dtype == torch.float32 for g in found.values())
    assert error(found) < 1.2 * error(expected)


def test_recomputed_activations_change_nothing(adapted: Adapt) -> None:
    usual, shared = adapted()
    _, expected = loss_and_gradients(usual)
    shared.train()
    shared.gradient_checkpointing_enable({"use_reentrant": False})
    shared.enable_input_require_grads()
    _, found = loss_and_gradients(shared)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_layers_that_are_no_plain_linear_are_left(adapted: Adapt) -> None:
    _, shared = adapted(target_modules=["q_proj", "embed_tokens"])
    kinds = {type(m) for m in shared.modules() if hasattr(m, "lora_A")}
    assert SharedLoraLinear in kinds
    assert len(kinds) == 2
