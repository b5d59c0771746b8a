"""The learning rate at every step, against transformers' own schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from luthier.contracts.training import Progress
from luthier.engine.schedule import (
    build_schedule,
    cadence,
    count_steps,
    decay_steps,
    is_due,
    warmup_steps,
)
from luthier.engine.settings import ScheduleSettings
from luthier.recipes.reference import schedule_arguments

SHAPES: list[dict[str, Any]] = [
    {"lr_scheduler_type": "linear"},
    {"lr_scheduler_type": "cosine"},
    {"lr_scheduler_type": "constant"},
    {"lr_scheduler_type": "cosine_with_min_lr"},
    {"lr_scheduler_type": "cosine_with_min_lr", "min_lr_ratio": 0.0},
    {"lr_scheduler_type": "polynomial"},
    {"lr_scheduler_type": "polynomial", "lr_power": 2.5, "min_lr_ratio": 0.2},
    {"lr_scheduler_type": "inverse_sqrt"},
    {"lr_scheduler_type": "warmup_stable_decay"},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_decay_ratio": 1.0, "min_lr_ratio": 0.1},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_decay_type": "linear", "lr_decay_ratio": 0.3},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_decay_type": "cosine", "lr_decay_ratio": 0.5},
]


def transformers_rates(settings: ScheduleSettings, num_steps: int) -> list[float]:
    """The schedule by transformers, from the arguments that the reference trainer is given."""
    arguments = schedule_arguments(settings, num_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    scheduler: Any = get_scheduler(
        arguments["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=arguments["warmup_steps"],
        num_training_steps=num_steps,
        scheduler_specific_kwargs=arguments["lr_scheduler_kwargs"],
    )
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(num_steps - 1):  # beyond the last step, polynomial may divide by zero
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return rates


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
@pytest.mark.parametrize(
    "warmup",
    [{}, {"warmup_ratio": 0.1}, {"warmup_ratio": 0.99}, {"warmup_steps": 5}, {"warmup_steps": 200}],
)
def test_equals_transformers_at_every_step(
    shape: dict[str, Any], num_steps: int, warmup: dict[str, Any]
) -> None:
    values: dict[str, Any] = {"learning_rate": 3e-4, **shape, **warmup}
    settings = ScheduleSettings(**values)
    rate = build_schedule(settings, num_steps)
    ours = [rate(step) for step in range(num_steps)]
    assert ours == pytest.approx(transformers_rates(settings, num_steps), rel=1e-9, abs=1e-15)


def test_shapes() -> None:
    def rates(shape: Any) -> list[float]:
        values = ScheduleSettings(learning_rate=1.0, lr_scheduler_type=shape, warmup_steps=2)
        rate = build_schedule(values, 10)
        return [rate(step) for step in (0, 1, 2, 6, 10, 99)]

    assert rates("linear") == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    assert rates("cosine") == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 0.0])
    assert rates("constant") == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert rates("cosine_with_min_lr") == pytest.approx([0.0, 0.5, 1.0, 0.55, 0.1, 0.1])
    assert rates("polynomial") == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    root = math.sqrt(0.5)
    assert rates("inverse_sqrt")[:3] == [0.0, 0.5, 1.0]
    assert rates("inverse_sqrt")[3] == pytest.approx(math.sqrt(2 / 6))
    values = ScheduleSettings(
        learning_rate=1.0,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=2,
        lr_decay_ratio=0.4,
        min_lr_ratio=0.5,
    )
    falling = build_schedule(values, 10)
    assert [falling(step) for step in (0, 1, 2, 5, 6)] == [0.5, 0.75, 1.0, 1.0, 1.0]
    assert [falling(step) for step in (8, 10, 99)] == pytest.approx([1 - root / 2, 0.5, 0.5])


def test_steps_of_the_parts_of_a_schedule() -> None:
    settings = ScheduleSettings(
        lr_scheduler_type="warmup_stable_decay", warmup_ratio=0.25, lr_decay_ratio=0.9
    )
    assert warmup_steps(settings, 10) == 3
    assert decay_steps(settings, 10) == 7  # all that warm-up leaves
    assert decay_steps(ScheduleSettings(lr_scheduler_type="warmup_stable_decay"), 95) == 10


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
