"""The reference: the model before training, the adapter off, each row's numbers in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from luthier.batches.cutting import split_batch
from luthier.batches.pairs import build_pair_collator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import evaluation_batches, evaluation_order
from luthier.contracts.training import StopAskedError
from luthier.engine.memory import MicroBatches
from luthier.engine.precision import Precision
from luthier.evaluation.reference_log_probs import COLUMNS, ReferencePass
from luthier.models.lora_linear import share_lora_products
from luthier.models.segments import SEGMENTS, register_segments
from luthier.objectives.find_head import find_head
from luthier.objectives.pair_log_probs import pair_log_probs

register_segments()
torch.set_num_threads(1)


def make_model() -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_dropout=0.5,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=SEGMENTS)


def make_pairs() -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    pairs: list[dict[str, Any]] = []
    for prompt, chosen, rejected in ((3, 2, 4), (6, 5, 1), (1, 1, 1), (4, 7, 3), (2, 2, 2)):
        ids = torch.randint(3, 61, (prompt + chosen + rejected,), generator=random).tolist()
        labels = [-100] * prompt + ids[prompt:]
        pairs.append(
            {
                "input_ids": ids,
                "labels": labels,
                "prompt_length": prompt,
                "chosen_length": chosen,
            }
        )
    return pairs


PAIRS = make_pairs()
LENGTHS = [len(pair["input_ids"]) for pair in PAIRS]


def batches_of(packing: Any) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    settings = BatchSettings(packing=packing, per_device_eval_batch_size=2)
    collate = build_pair_collator(settings, pad_id=0)
    order = evaluation_order(LENGTHS, settings)
    return zip(order, evaluation_batches(PAIRS, LENGTHS, collate, settings), strict=True)


def reference_of(model: Any, **fields: Any) -> ReferencePass:
    head, _ = find_head(model)
    return ReferencePass(head, Precision(torch.float32, "cpu"), torch.device("cpu"), **fields)


def one_by_one(model: Any) -> torch.Tensor:
    """The model's numbers for each pair by itself, in evaluation mode."""
    model.eval()
    collate = build_pair_collator(BatchSettings(packing=False), pad_id=0)
    with torch.no_grad():
        found = [pair_log_probs(None, model, collate([pair])) for pair in PAIRS]
    return torch.stack([torch.cat([getattr(each, name) for name in COLUMNS]) for each in found])


@pytest.mark.parametrize("packing", ["padding_free", False])
def test_each_row_has_its_own_numbers(packing: Any) -> None:
    model = make_model()
    expected = one_by_one(model)
    model.train()
    model.model.layers[0].eval()
    seen: list[tuple[str, int, int]] = []
    reference = reference_of(model, progress=lambda *state: seen.append(state))
    found = torch.from_numpy(reference(model, batches_of(packing), len(PAIRS)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert seen[-1] == ("reference log-probabilities", 5, 5)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert model.training
    assert not model.model.layers[0].training, "each module is in the mode that it was in"


@pytest.mark.parametrize("way", ["lora", "lora of luthier", "saved modules"])
def test_the_adapter_is_off_and_then_on_again(way: str) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_model()
    expected = one_by_one(base)
    saved = ["lm_head", "embed_tokens"] if way == "saved modules" else None
    lora = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, modules_to_save=saved
    )
    model = get_peft_model(base, lora)
    if saved:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "modules_to_save" in name:
                    parameter.mul_(1.5)
    if way == "lora of luthier":
        assert share_lora_products(model) > 0
    trained = one_by_one(model)
    assert not torch.allclose(trained, expected)
    model.train()
    found = torch.from_numpy(reference_of(model)(model, batches_of("padding_free"), len(PAIRS)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one_by_one(model), trained)


def test_memory_that_runs_out_halves_the_batches() -> None:
    model = make_model()
    expected = one_by_one(model)
    forward = model.model.forward

    def small(*args: Any, **inputs: Any) -> Any:
        if inputs["input_ids"].numel() > 20:
            raise torch.OutOfMemoryError("no room")
        return forward(*args, **inputs)

    reference = reference_of(model, micro_batches=MicroBatches(split_batch))
    model.model.forward = small
    found = torch.from_numpy(reference(model, batches_of("padding_free"), len(PAIRS)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stop_is_answered_between_batches() -> None:
    model = make_model().train()
    with pytest.raises(StopAskedError):
        reference_of(model, is_stopped=lambda: True)(model, batches_of(False), len(PAIRS))
    assert model.training


def test_a_row_that_is_missing_is_noticed() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="the batches hold 2 rows of 5"):
        reference_of(model)(model, [next(batches_of(False))], len(PAIRS))
