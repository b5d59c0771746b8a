"""The learning rate at every step, against transformers' own schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from luthier.contracts.training import Progress
from luthier.engine.schedule import build_schedule, cadence, count_steps, is_due
from luthier.engine.settings import ScheduleSettings

THEIR_NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def transformers_rates(name: str, warmup: int, num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler: Any = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=num_steps
    )
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
@pytest.mark.parametrize(
    "warmup",
    [{}, {"warmup_ratio": 0.1}, {"warmup_ratio": 0.99}, {"warmup_steps": 5}, {"warmup_steps": 200}],
)
def test_equals_transformers_at_every_step(
    shape: str, num_steps: int, warmup: dict[str, Any]
) -> None:
    values: dict[str, Any] = {"learning_rate": 3e-4, "lr_scheduler_type": shape, **warmup}
    settings = ScheduleSettings(**values)
    rate = build_schedule(settings, num_steps)
    steps = warmup.get("warmup_steps") or math.ceil(warmup.get("warmup_ratio", 0) * num_steps)
    expected = transformers_rates(THEIR_NAMES[shape], steps, num_steps)
    ours = [rate(step) for step in range(num_steps)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_shapes() -> None:
    def rates(shape: Any) -> list[float]:
        values = ScheduleSettings(learning_rate=1.0, lr_scheduler_type=shape, warmup_steps=2)
        rate = build_schedule(values, 10)
        return [rate(step) for step in (0, 1, 2, 6, 10, 99)]

    assert rates("linear") == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    assert rates("cosine") == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 0.0])
    assert rates("constant") == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "max_steps", "expected"),
    [
        (3.0, 7, None, 21),
        (0.5, 7, None, 4),
        (0.01, 7, None, 1),
        (3.0, 7, 5, 5),
        (0.1, 7, 50, 50),
    ],
)
def test_count_steps(epochs: float, per_epoch: int, max_steps: int | None, expected: int) -> None:
    assert count_steps(epochs, per_epoch, max_steps) == expected


@pytest.mark.parametrize(
    ("strategy", "steps", "expected"),
    [
        ("no", None, None),
        ("auto", None, "epoch"),
        ("auto", 3, 3),
        ("steps", 3, 3),
        ("epoch", None, "epoch"),
    ],
)
def test_cadence(strategy: str, steps: int | None, expected: Any) -> None:
    assert cadence(strategy, steps) == expected


def test_is_due_every_so_many_steps_and_at_the_end() -> None:
    progress = [Progress(step=step, num_steps=11) for step in range(1, 12)]
    assert [p.step for p in progress if is_due(p, 3)] == [3, 6, 9, 11]
    assert not any(is_due(p, None) for p in progress)


def test_epochs_end_where_the_data_says_so() -> None:
    """The first epoch has 3 steps, the second 4, of the third one is wanted."""
    epochs = [1 / 3, 2 / 3, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25]
    progress = [Progress(n, num_steps=8, epoch=epoch) for n, epoch in enumerate(epochs, start=1)]
    assert [p.step for p in progress if is_due(p, "epoch")] == [3, 7, 8]
