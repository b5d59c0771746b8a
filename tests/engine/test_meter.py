"""Sums over steps; the clock is put in by hand."""

from __future__ import annotations

import time

import pytest
import torch

from luthier.engine.meter import Meter, StepOutcome, memory_bytes


def outcome(total: float, weight: float, tokens: int = 10) -> StepOutcome:
    return StepOutcome(
        loss_total=total,
        loss_weight=weight,
        num_tokens=tokens,
        num_supervised=tokens // 2,
        num_rows=1,
        grad_norm=total,
        learning_rate=total / 100,
    )


def test_loss_of_a_step_is_divided_once() -> None:
    assert outcome(6.0, 4.0).loss == 1.5
    assert outcome(0.0, 0.0).loss == 0.0


def test_reading_sums_steps_and_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps of 2 s and 3 s; the 95 s between them, an evaluation perhaps, do not count.
    clock = iter([0.0, 2.0, 97.0, 100.0, 200.0, 204.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Meter()
    for step in (outcome(2.0, 1.0, tokens=10), outcome(8.0, 9.0, tokens=40)):
        meter.start()
        meter.add(step)
    metrics = meter.read()
    assert metrics["memory_bytes"] > 0
    del metrics["memory_bytes"]
    assert metrics == {
        "loss": 1.0,  # (2 + 8) / (1 + 9), not the mean of 2 and 8/9
        "learning_rate": 0.08,
        "grad_norm": 5.0,
        "tokens_per_second": 10.0,
        "supervised_tokens_per_second": 5.0,
        "seconds_per_step": 2.5,
    }
    meter.start()
    meter.add(outcome(3.0, 1.0, tokens=8))
    assert meter.read()["loss"] == 3.0


def test_steps_without_weight_have_no_loss() -> None:
    meter = Meter()
    meter.start()
    meter.add(outcome(0.0, 0.0))
    assert meter.read()["loss"] == 0.0


def test_memory_is_the_gpus_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    assert memory_bytes() == 123
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory_bytes() > 10_000_000
