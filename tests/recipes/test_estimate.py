"""The estimate of steps, padding and time, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luthier.models.adapters import ParameterCount
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve
from luthier.recipes.estimate import EFFICIENCY, Estimate, estimate_run
from luthier.recipes.memory_estimate import Computing, ModelShape, estimate_memory

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
COMPUTING = Computing(
    value_bytes=2, device_type="cpu", available_bytes=10**12, flops_per_second=1e6
)


def settings(**values: Any) -> Any:
    values = {"model_name_or_path": "m", "packing": False, **values}
    return resolve((), [Entry(name, value, "test") for name, value in values.items()]).config


def estimate(lengths: list[int], computing: Computing = COMPUTING, **values: Any) -> Estimate:
    return estimate_run(settings(**values), lengths, SHAPE, computing)


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
    assert found.seconds == pytest.approx(flops / (1e6 * EFFICIENCY[False]))
    assert estimate([6, 6], num_train_epochs=3).seconds == pytest.approx(3 * found.seconds)
    recomputed = estimate([6, 6], num_train_epochs=1, gradient_checkpointing=True)
    assert recomputed.seconds == pytest.approx(found.seconds * 6.2 / 4.2)
    padded = estimate([6, 6], num_train_epochs=1, max_steps=1)
    assert padded.seconds == pytest.approx(found.seconds / 2)


def test_padded_and_packed_rows_reach_their_own_share_of_the_rate():
    packed = estimate([2, 6], per_device_train_batch_size=2, packing="padding_free")
    assert packed.padding_share == 0
    assert packed.seconds == pytest.approx(3 * 4.2 * 800 * 8 / (1e6 * EFFICIENCY[True]))


def test_memory_is_that_of_the_worst_batch_with_what_auto_chose():
    config = settings(per_device_train_batch_size=2)
    plain, recomputed = (
        estimate_memory(config, SHAPE, [6, 2], COMPUTING, recompute=recompute)
        for recompute in (False, True)
    )
    found = estimate([6, 2], per_device_train_batch_size=2)
    assert (found.memory_bytes, found.recomputes, found.notice) == (plain.total, False, None)
    little = replace(COMPUTING, available_bytes=plain.weights + plain.to_come - 1)
    small = estimate([6, 2], little, per_device_train_batch_size=2)
    assert (small.memory_bytes, small.recomputes) == (recomputed.total, True)
    assert small.notice is not None
    assert small.seconds == pytest.approx(found.seconds * 6.2 / 4.2)
    asked = estimate([6, 2], per_device_train_batch_size=2, gradient_checkpointing=True)
    assert (asked.memory_bytes, asked.notice) == (recomputed.total, None)
