"""Memory by parts, against numbers worked out by hand, and the choice that follows from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luthier.models.adapters import ParameterCount, apply_tuning, count_parameters
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve
from luthier.recipes.memory_estimate import (
    Computing,
    Memory,
    ModelShape,
    choose_recomputation,
    estimate_memory,
    model_shape,
    num_positions,
    worst_rows,
)
from luthier.recipes.run_config import RunConfig

SHAPE = ModelShape(
    parameters=ParameterCount(trained=100, total=1_000),
    matrix_parameters=800,
    hidden_size=4,
    num_layers=3,
    vocab_size=50,
    intermediate_size=8,
    num_heads=2,
    query_width=4,
    key_value_width=2,
    kept_layers=3,
)
BF16 = Computing(value_bytes=2, device_type="cpu", available_bytes=10**12)
FP32 = replace(BF16, value_bytes=4)
FULL = {"finetuning_type": "full"}


def settings(**values: Any) -> RunConfig:
    padded = {"model_name_or_path": "m", "per_device_train_batch_size": 2, "packing": False}
    values = padded | values
    return resolve((), [Entry(name, value, "test") for name, value in values.items()]).config


def estimate(
    values: dict[str, Any], computing: Computing = BF16, *, recompute: bool = False
) -> Memory:
    return estimate_memory(settings(**values), SHAPE, [6, 2], computing, recompute=recompute)


@pytest.mark.parametrize(
    ("values", "computing", "weights", "training"),
    [
        ({}, BF16, 1_000 * 2, 100 * 8),
        ({}, FP32, 1_000 * 4, 100 * 8),
        ({"quantization_bit": 4}, BF16, 550, 100 * 8),
        ({"quantization_bit": 8}, BF16, 1_100, 100 * 8),
        ({"optim": "adafactor"}, BF16, 1_000 * 2, 0),
        ({"optim": "lion"}, BF16, 1_000 * 2, 100 * 4),
        ({"optim": "adamw_8bit"}, BF16, 1_000 * 2, 100 * 2),
        ({"optim": "paged_adamw_8bit"}, BF16, 1_000 * 2, 100 * 2),
        ({"optim": "lion_8bit"}, BF16, 1_000 * 2, 100),
        # Embeddings and head are two tables of 50 x 4, and AdamW's.
        ({**FULL, "optim": "muon"}, FP32, 1_000 * 4, 100 * 4 + 2 * 50 * 4 * 4),
        ({"finetuning_type": "freeze", "optim": "muon"}, FP32, 1_000 * 4, 100 * 4),
        # From the second micro-batch of a step on, gradients are there beside the activations.
        ({"gradient_accumulation_steps": 2}, BF16, 1_000 * 2, 100 * 12),
        ({"per_device_train_batch_size": "auto"}, BF16, 1_000 * 2, 100 * 12),
        # What is trained is stored in float32, and cast for the products.
        (FULL, BF16, 1_000 * 4, 100 * 8 + 800 * 2),
        (FULL, FP32, 1_000 * 4, 100 * 8),
    ],
    ids=str,
)
def test_weights_and_what_training_adds(
    values: dict[str, Any], computing: Computing, weights: int, training: int
):
    found = estimate(values, computing)
    assert (found.weights, found.training) == (weights, training)
    assert found.to_come == training + found.activations + found.loss
    assert found.total == found.process + weights + found.to_come


def padded(tokens: int, longest: int, stream_bytes: int, value_bytes: int) -> int:
    # Keys and values are as wide as the queries, and each token has its row of the mask.
    values = 2 * 4 + 4 * 4 + 4 * 8 + longest
    return tokens * (2 * 4 * stream_bytes + values * value_bytes)


def packed(tokens: int, scores: int = 0) -> int:
    values = 2 * 4 + 2 * 4 + 2 * 2 + 4 * 8
    return tokens * (2 * 4 * 2 + values * 2) + 2 * scores * 2


@pytest.mark.parametrize(
    ("values", "computing", "recompute", "expected"),
    [
        # Two rows padded to six.
        ({}, BF16, False, 3 * padded(12, 6, 2, 2) * 1.35),
        ({}, FP32, False, 3 * padded(12, 6, 4, 4) * 1.35),
        (FULL, BF16, False, 3 * padded(12, 6, 4, 2) * 1.35),
        # What goes from layer to layer stays, and one layer at a time is whole.
        ({}, BF16, True, (3 * 12 * 4 * 2 + padded(12, 6, 2, 2)) * 1.35),
        (FULL, BF16, True, (3 * 12 * 4 * 4 + padded(12, 6, 4, 2)) * 1.35),
        # Packed: no padding; on a CPU the weights of the attention within each row.
        ({"packing": "padding_free"}, BF16, False, 3 * packed(8, 6 * 6 + 2 * 2) * 1.2),
        (
            {"packing": "padding_free"},
            replace(BF16, device_type="cuda"),
            False,
            3 * packed(8) * 1.1,
        ),
    ],
    ids=str,
)
def test_activations(
    values: dict[str, Any], computing: Computing, recompute: bool, expected: float
):
    assert estimate(values, computing, recompute=recompute).activations == int(expected)


def test_gradients_may_take_more_than_activations():
    many = replace(SHAPE, parameters=ParameterCount(trained=10**6, total=10**6))
    found = estimate_memory(settings(**FULL), many, [6, 2], BF16, recompute=True)
    assert found.activations == 4 * 10**6


def test_attention_weights_of_longer_rows():
    def scores(length: int) -> int:
        found = estimate_memory(
            settings(packing="padding_free"), SHAPE, [length], BF16, recompute=False
        )
        return round((found.activations / 1.2 - 3 * packed(length)) / (3 * 2 * 2))

    assert scores(384) == 384 * 384
    assert scores(1_000) == 1_000 * 1_000 // 2
    assert scores(1_025) == 0


def test_the_loss_holds_a_chunk_of_logits_and_not_all():
    # 12 tokens: fewer logits than a chunk. Hidden states in both types.
    hidden = 12 * 4 * (2 + 4)
    assert estimate({}).loss == 600 * 2 + 2 * 600 * 4 + hidden
    assert estimate(FULL).loss == 600 * 2 + 2 * 600 * 4 + hidden + 50 * 4 * 4
    assert estimate({}, replace(BF16, full_logits=True)).loss == 600 * 2 * (2 + 4)
    large = replace(SHAPE, vocab_size=256_000)
    many, few = (
        estimate_memory(settings(), large, [length], BF16, recompute=False).loss
        for length in (8_192, 1_024)
    )
    assert many - few == (8_192 - 1_024) * 4 * (2 + 4)
    on_gpu = estimate_memory(
        settings(), large, [8_192], replace(BF16, device_type="cuda"), recompute=False
    )
    assert on_gpu.loss == 2**24 * (2 + 2 * 4) + 8_192 * 4 * (2 + 4)


def test_the_rows_of_the_largest_micro_batch():
    lengths = [3, 9, 1, 9, 2, 5]
    padded = worst_rows(settings(), lengths)
    assert len(padded) == 2
    assert num_positions(settings(), padded) == 2 * 9
    free = worst_rows(settings(packing="padding_free", per_device_train_batch_size=6), lengths)
    assert num_positions(settings(packing="padding_free"), free) == 29
    # Two filled rows of 12 hold 24 tokens.
    filled = worst_rows(settings(packing=True, cutoff_len=12), lengths)
    assert filled == [9, 9, 5, 1]
    assert worst_rows(settings(per_device_train_batch_size="auto"), lengths) == [9]


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_is_done_whatever_the_memory(asked: bool):
    config = settings(gradient_checkpointing=asked)
    for available in (0, 10**12):
        computing = replace(BF16, available_bytes=available)
        found = choose_recomputation(config, SHAPE, [6, 2], computing, is_loaded=True)
        assert found == (asked, None)


def test_auto_recomputes_only_where_memory_asks_for_it():
    config = settings()
    memory = estimate({})

    def choose(available: int, *, is_loaded: bool) -> Any:
        computing = replace(BF16, available_bytes=available)
        return choose_recomputation(config, SHAPE, [6, 2], computing, is_loaded=is_loaded)

    assert choose(memory.to_come, is_loaded=True) == (False, None)
    assert choose(memory.to_come + memory.weights, is_loaded=False) == (False, None)
    assert choose(memory.to_come + memory.weights - 1, is_loaded=False)[0]
    recompute, notice = choose(memory.to_come - 1, is_loaded=True)
    assert recompute
    # 800 of Adam; 1.35 * 5,040 of activations, or 1.35 * 1,968; 6,288 of the loss.
    assert str(notice) == (
        "gradient_checkpointing: auto -> true (training would take about 13.6 KiB more, and "
        "13.6 KiB are available; with it, about 9.5 KiB)"
    )


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_reward_models_table_is_no_head(tiny_llama: Any, is_tied: bool):
    from transformers import AutoModelForSequenceClassification

    folder = str(tiny_llama(tie_word_embeddings=is_tied))
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    count = count_parameters(model)
    table = model.get_input_embeddings().weight.numel()
    assert model_shape(model, count).matrix_parameters == count.total - table


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_shape_of_a_model(tiny_llama: Any, is_tied: bool):
    from transformers import AutoModelForCausalLM

    folder = tiny_llama(tie_word_embeddings=is_tied)
    model = AutoModelForCausalLM.from_pretrained(folder)
    total = sum(p.numel() for p in model.parameters())
    table = 512 * 32
    shape = model_shape(model, count_parameters(model))
    assert shape == ModelShape(
        parameters=ParameterCount(total, total),
        matrix_parameters=total if is_tied else total - table,
        hidden_size=32,
        num_layers=2,
        vocab_size=512,
        intermediate_size=64,
        num_heads=model.config.num_attention_heads,
        query_width=32,
        key_value_width=32 * model.config.num_key_value_heads // model.config.num_attention_heads,
        kept_layers=2,
    )
    tuned = apply_tuning(model, LoraTuning(lora_rank=2))
    count = count_parameters(tuned)
    assert 0 < count.trained < total < count.total
    assert model_shape(tuned, count).parameters == count
    assert model_shape(tuned, count).kept_layers == 2


@pytest.mark.parametrize(
    ("tuning", "kept"),
    [
        (FreezeTuning(freeze_trainable_layers=1), 1),
        (FreezeTuning(freeze_trainable_layers=-1), 2),
        (FreezeTuning(freeze_trainable_layers=1, freeze_extra_modules=["embed_tokens"]), 2),
        (FullTuning(), 2),
    ],
    ids=str,
)
def test_layers_under_the_first_trained_one_keep_nothing(tiny_llama: Any, tuning: Any, kept: int):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama(tie_word_embeddings=False))
    model = apply_tuning(model, tuning)
    assert model_shape(model, count_parameters(model)).kept_layers == kept


def test_a_model_whose_config_has_sizes_by_layer_or_none():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=32, n_positions=32, n_embd=16, n_layer=3, n_head=2)
    model = GPT2LMHeadModel(config)
    shape = model_shape(model, count_parameters(model))
    assert (shape.num_heads, shape.query_width, shape.key_value_width) == (2, 16, 16)
    assert shape.intermediate_size == 64
    assert shape.kept_layers == 3
    model.config.intermediate_size = [24, 40]
    assert model_shape(model, count_parameters(model)).intermediate_size == 40
