"""The estimate of steps, padding, time and memory, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.models.adapters import ParameterCount, apply_tuning, count_parameters
from luthier.models.settings import LoraTuning
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve
from luthier.recipes.estimate import (
    EFFICIENCY,
    PROCESS_BYTES,
    Estimate,
    ModelShape,
    estimate_run,
    model_shape,
)

SHAPE = ModelShape(
    parameters=ParameterCount(trained=100, total=1_000),
    matrix_parameters=800,
    hidden_size=4,
    num_layers=3,
    vocab_size=50,
    intermediate_size=8,
)


def estimate(lengths: list[int], value_bytes: int = 2, **values: Any) -> Estimate:
    values = {"model_name_or_path": "m", **values}
    config = resolve((), [Entry(name, value, "test") for name, value in values.items()]).config
    return estimate_run(config, lengths, SHAPE, 1e6, value_bytes)


@pytest.mark.parametrize(
    ("values", "num_steps"),
    [
        ({"num_train_epochs": 1}, 7),
        ({"num_train_epochs": 2, "per_device_train_batch_size": 2}, 8),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 4}, 2),
        ({"num_train_epochs": 0.5}, 4),
        ({"max_steps": 3}, 3),
    ],
)
def test_steps(values: dict[str, Any], num_steps: int):
    assert estimate([5] * 7, **values).num_steps == num_steps


def test_padding_is_the_share_of_positions_without_a_token():
    assert estimate([6, 6], per_device_train_batch_size=2).padding_share == 0
    assert estimate([2, 6], per_device_train_batch_size=2).padding_share == pytest.approx(4 / 12)
    assert estimate([2, 6], per_device_train_batch_size=1).padding_share == 0


def test_time_follows_from_positions_parameters_and_rate():
    # Forward 2, gradient of activations 2, gradient of the trained tenth 2 * 0.1: 4.2 a parameter.
    flops = 4.2 * 800 * 12
    found = estimate([6, 6], num_train_epochs=1)
    assert found.seconds == pytest.approx(flops / (1e6 * EFFICIENCY))
    assert estimate([6, 6], num_train_epochs=3).seconds == pytest.approx(3 * found.seconds)
    recomputed = estimate([6, 6], num_train_epochs=1, gradient_checkpointing=True)
    assert recomputed.seconds == pytest.approx(found.seconds * 6.2 / 4.2)
    padded = estimate([6, 6], num_train_epochs=1, max_steps=1)
    assert padded.seconds == pytest.approx(found.seconds / 2)


def activations(tokens: int, layers: int, value_bytes: int) -> int:
    return tokens * (10 * 4 + 5 * 8) * layers * value_bytes + tokens * 50 * 2 * (value_bytes + 4)


@pytest.mark.parametrize(
    ("values", "value_bytes", "expected"),
    [
        ({}, 2, 1_000 * 2 + 100 * 12 + activations(12, 3, 2)),
        ({}, 4, 1_000 * 4 + 100 * 12 + activations(12, 3, 4)),
        ({"finetuning_type": "full"}, 2, 1_000 * 4 + 100 * 12 + activations(12, 3, 2)),
        ({"optim": "adafactor"}, 2, 1_000 * 2 + 100 * 4 + activations(12, 3, 2)),
        ({"quantization_bit": 4}, 2, 550 + 100 * 12 + activations(12, 3, 2)),
        ({"quantization_bit": 8}, 2, 1_100 + 100 * 12 + activations(12, 3, 2)),
        ({"gradient_checkpointing": True}, 2, 2_000 + 1_200 + activations(12, 2, 2)),
        ({"per_device_train_batch_size": 1}, 2, 2_000 + 1_200 + activations(6, 3, 2)),
    ],
    ids=str,
)
def test_memory(values: dict[str, Any], value_bytes: int, expected: int):
    values = {"per_device_train_batch_size": 2, **values}
    assert estimate([6, 2], value_bytes, **values).memory_bytes == PROCESS_BYTES + expected


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
    )
    tuned = apply_tuning(model, LoraTuning(lora_rank=2))
    count = count_parameters(tuned)
    assert 0 < count.trained < total < count.total
    assert model_shape(tuned, count).parameters == count
