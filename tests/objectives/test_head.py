"""What the logits are made of: peft's wrappers on the head, switched on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from luthier.objectives.find_head import find_head
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., dict[str, torch.Tensor]]


def lora_model(model: Any, **options: Any) -> Any:
    """Wrap a model with LoRA whose second matrices aren't zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config: dict[str, Any] = {
        "r": 3,
        "lora_alpha": 5,
        "target_modules": ["q_proj", "lm_head"],
        **options,
    }
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return tuned.eval()


def assert_same_as_logits(model: Any, batch: dict[str, torch.Tensor]) -> None:
    head, notice = find_head(model)
    assert head is not None, notice
    results = []
    for objective in (SupervisedFineTuning(), SupervisedFineTuning(head=head)):
        model.zero_grad()
        loss = objective(model, batch)
        loss.total.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        results.append((float(loss.total), gradients))
    (plain, by_logits), (ours, by_hidden) = results
    assert ours == pytest.approx(plain, rel=1e-5)
    assert by_hidden.keys() == by_logits.keys()
    torch.testing.assert_close(by_hidden, by_logits, rtol=1e-4, atol=1e-5)
    assert any(gradient is not None and gradient.any() for gradient in by_hidden.values())


def test_lora_on_the_head(tiny_model: Any, random_batch: Make) -> None:
    tuned = lora_model(tiny_model)
    assert type(tuned.get_base_model().lm_head).__module__ == "peft.tuners.lora.layer"
    assert_same_as_logits(tuned, random_batch())
    head, _ = find_head(tuned)
    assert head is not None
    assert not head.trained


def test_lora_below_the_head(tiny_model: Any, random_batch: Make) -> None:
    assert_same_as_logits(lora_model(tiny_model, target_modules=["q_proj"]), random_batch())


def test_a_head_that_is_trained_whole_beside_lora(tiny_model: Any, random_batch: Make) -> None:
    tuned = lora_model(tiny_model, target_modules=["q_proj"], modules_to_save=["lm_head"])
    saved = tuned.get_base_model().lm_head.modules_to_save["default"]
    with torch.no_grad():
        saved.weight += 0.1 * torch.randn_like(saved.weight)
    assert_same_as_logits(tuned, random_batch())
    head, _ = find_head(tuned)
    assert head is not None
    assert head.trained
    batch = random_batch()
    trained = float(SupervisedFineTuning(head=head)(tuned, batch).total)
    with tuned.disable_adapter():
        off = float(SupervisedFineTuning(head=head)(tuned, batch).total)
        assert off == pytest.approx(float(SupervisedFineTuning()(tuned, batch).total), rel=1e-5)
    assert off != pytest.approx(trained, rel=1e-3)


def test_two_adapters_at_once(tiny_model: Any, random_batch: Make) -> None:
    from peft import LoraConfig

    tuned = lora_model(tiny_model)
    tuned.add_adapter("second", LoraConfig(r=2, target_modules=["lm_head"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B.second" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned.base_model.set_adapter(["default", "second"])
    assert_same_as_logits(tuned.eval(), random_batch())


def test_adapters_are_looked_up_at_each_call(tiny_model: Any, random_batch: Make) -> None:
    """The same head serves the model with its adapter, without, and merged."""
    tuned, batch = lora_model(tiny_model), random_batch()
    head, _ = find_head(tuned)
    objective, plain = SupervisedFineTuning(head=head), SupervisedFineTuning()
    with torch.no_grad():
        on = float(objective(tuned, batch).total)
        tuned.merge_adapter()
        assert float(objective(tuned, batch).total) == pytest.approx(on, rel=1e-5)
        with tuned.disable_adapter():  # Takes the merged adapter out again.
            off = float(objective(tuned, batch).total)
            assert off == pytest.approx(float(plain(tuned, batch).total), rel=1e-5)
        assert off != pytest.approx(on, rel=1e-3)


def test_dropout_of_the_heads_adapter_is_applied(tiny_model: Any, random_batch: Make) -> None:
    tuned = lora_model(tiny_model, target_modules=["lm_head"], lora_dropout=0.5)
    head, _ = find_head(tuned)
    objective, batch = SupervisedFineTuning(head=head), random_batch()
    still = {float(objective(tuned, batch).total) for _ in range(3)}
    tuned.train()
    dropped = {float(objective(tuned, batch).total) for _ in range(3)}
    assert len(still) == 1
    assert len(dropped) == 3


@pytest.mark.parametrize("num_tokens", [3, 20], ids=["as a low-rank term", "as a copy"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_rows_of_single_tokens(
    family_model: Callable[[str], Any], random_batch: Make, is_tied: bool, num_tokens: int
) -> None:
    tokens = list(range(5, 5 + num_tokens))
    rows = dict.fromkeys(("model.embed_tokens", "lm_head")[: 1 if is_tied else 2], tokens)
    model = family_model("Llama" if is_tied else "Qwen3")
    tuned = lora_model(model, target_modules=["q_proj"], trainable_token_indices=rows)
    deltas = [p for name, p in tuned.named_parameters() if "trainable_tokens_delta" in name]
    assert len(deltas) == len(rows)
    with torch.no_grad():
        for delta in deltas:
            delta += 0.3 * torch.randn_like(delta)
    batch = random_batch((12, 30))
    assert_same_as_logits(tuned, batch)
    assert all(delta.grad is not None and delta.grad.any() for delta in deltas)
    head, _ = find_head(tuned)
    assert head is not None
    assert not head.trained
    objective, plain = SupervisedFineTuning(head=head), SupervisedFineTuning()
    with torch.no_grad():
        on = float(objective(tuned, batch).total)
        tuned.merge_adapter()
        assert float(objective(tuned, batch).total) == pytest.approx(on, rel=1e-5)
        with tuned.disable_adapter():
            off = float(objective(tuned, batch).total)
            assert off == pytest.approx(float(plain(tuned, batch).total), rel=1e-5)
        assert off != pytest.approx(on, rel=1e-3)


def test_under_autocast_too(tiny_model: Any, random_batch: Make) -> None:
    tuned, batch = lora_model(tiny_model), random_batch()
    with torch.autocast("cpu", torch.bfloat16):
        head, _ = find_head(tuned)
        ours = SupervisedFineTuning(head=head)(tuned, batch)
        plain = SupervisedFineTuning()(tuned, batch)
    assert float(ours.total) == pytest.approx(float(plain.total), rel=1e-2)
    ours.total.backward()


def test_another_model_is_refused(
    tiny_model: Any, family_model: Callable[[str], Any], random_batch: Make
) -> None:
    head, _ = find_head(tiny_model)
    objective = SupervisedFineTuning(head=head)
    with pytest.raises(ValueError, match="found in another model than this GraniteForCausalLM"):
        objective(family_model("Granite"), random_batch())
