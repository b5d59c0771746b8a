"""Sums over steps; the clock is put in by hand."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pytest
import torch

from luthier.contracts.training import MetricSum
from luthier.engine.meter import PARTS, Meter, StepOutcome, memory_bytes


def outcome(total: float, weight: float, tokens: int = 10, step: int = 1) -> StepOutcome:
    return StepOutcome(
        step=step,
        loss_total=torch.tensor(total),
        loss_weight=weight,
        num_tokens=tokens,
        num_supervised=tokens // 2,
        num_rows=1,
        grad_norm=torch.tensor(total),
        learning_rate=total / 100,
    )


def test_loss_of_a_step_is_divided_once() -> None:
    assert outcome(6.0, 4.0).loss == 1.5
    assert outcome(0.0, 0.0).loss == 0.0


def test_reading_sums_steps_and_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps of 2 s and 3 s, 5 s to wait for the device; the 95 s between, an evaluation perhaps,
    # do not count.
    clock = iter([0.0, 2.0, 97.0, 100.0, 200.0, 205.0, 300.0, 304.0, 304.0, 304.0])
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
        "tokens_per_second": 5.0,
        "supervised_tokens_per_second": 2.5,
        "seconds_per_step": 5.0,
        **{f"seconds_{part}": 0.0 for part in PARTS},
    }
    meter.start()
    meter.add(outcome(3.0, 1.0, tokens=8))
    assert meter.read()["loss"] == 3.0


def test_the_parts_of_a_step_are_means_over_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([float(second) for second in range(0, 100, 2)])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Meter()
    for number in (1, 2):
        meter.start()
        with meter.timing("forward"):
            pass
        if number == 2:
            with pytest.raises(MemoryError), meter.timing("backward"):
                raise MemoryError
        meter.add(outcome(1.0, 1.0))
    again = Meter()
    again.set_state(json.loads(json.dumps(meter.get_state())))
    metrics = meter.read()
    parts = {part: metrics[f"seconds_{part}"] for part in PARTS}
    assert parts == {"data": 0.0, "forward": 2.0, "backward": 1.0, "optimizer": 0.0}
    again.start()
    again.add(outcome(1.0, 1.0))
    assert again.read()["seconds_forward"] == 4.0


def test_a_state_from_before_there_were_parts_is_taken() -> None:
    meter = Meter()
    meter.set_state({"seconds": 1.0, "steps": []})
    meter.start()
    meter.add(outcome(1.0, 1.0))
    assert meter.read()["seconds_data"] == 0.0


def test_steps_without_weight_have_no_loss() -> None:
    meter = Meter()
    meter.start()
    meter.add(outcome(0.0, 0.0))
    assert meter.read()["loss"] == 0.0


def test_settling_fetches_each_step_once() -> None:
    meter = Meter()
    for number in (1, 2):
        meter.start()
        meter.add(outcome(float(number), 1.0))
        meter.settle()
        meter.settle()
    metrics = meter.read()
    assert (metrics["loss"], metrics["grad_norm"]) == (1.5, 1.5)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_step_that_was_not_taken_is_counted_and_left_out(loss: float, norm: float) -> None:
    meter = Meter()
    meter.add(outcome(1.0, 1.0, step=6))
    meter.add(replace(outcome(loss, 1.0, step=7), grad_norm=torch.tensor(norm)))
    meter.add(outcome(5.0, 1.0, step=8))
    settled = meter.settle()
    assert [step.step for step, _, _ in settled] == [6, 7, 8]
    assert str(settled[1][1:]) == str((loss, norm))
    metrics = meter.read()
    assert (metrics["loss"], metrics["grad_norm"], metrics["skipped_steps"]) == (3.0, 3.0, 1.0)


def test_a_log_of_nothing_but_such_steps_has_no_loss() -> None:
    meter = Meter()
    meter.add(outcome(math.nan, 1.0))
    metrics = meter.read()
    assert (metrics["loss"], metrics["grad_norm"], metrics["skipped_steps"]) == (0.0, 0.0, 1.0)


def told(step: StepOutcome, total: float, bins: list[float], weight: float) -> StepOutcome:
    one = MetricSum(torch.tensor(total), torch.tensor(weight))
    return replace(step, metrics={"one": one, "bins": MetricSum(torch.tensor(bins), one.weight)})


def test_an_objectives_metrics_are_summed_and_divided_once() -> None:
    meter = Meter()
    meter.add(told(outcome(1.0, 1.0), 6.0, [1.0, -2.0], 2.0))
    meter.add(outcome(1.0, 1.0))
    meter.settle()
    meter.add(told(outcome(math.nan, 1.0), 1e9, [1e9, 1e9], 1e9))
    meter.add(told(outcome(1.0, 1.0), 1.0, [2.0, -4.0], 5.0))
    metrics = meter.read()
    # Not the mean of 3 and 0.2; and bins are summed before their absolute values are.
    assert (metrics["one"], metrics["bins"]) == (1.0, 9.0 / 7.0)
    meter.add(outcome(1.0, 1.0))
    assert "one" not in meter.read()


def test_the_state_holds_metrics_too() -> None:
    straight, stopped, resumed = Meter(), Meter(), Meter()
    for meter in (straight, stopped):
        meter.add(told(outcome(1.0, 1.0), 6.5, [1.0, -2.0], 2.0))
        meter.settle()
    resumed.set_state(json.loads(json.dumps(stopped.get_state(), allow_nan=False)))
    unknown = told(outcome(1.0, 1.0), math.nan, [0.5, math.inf], 2.0)
    for meter in (straight, resumed):
        meter.add(told(outcome(2.0, 1.0), 1.5, [3.0, 3.0], 4.0))
    expected, found = straight.read(), resumed.read()
    assert found["one"] == expected["one"] == 8.0 / 6.0
    assert found["bins"] == expected["bins"] == 5.0 / 6.0
    stopped.add(unknown)
    stopped.settle()
    resumed.set_state(json.loads(json.dumps(stopped.get_state(), allow_nan=False)))
    assert math.isnan(resumed.read()["one"])


def test_a_state_from_before_there_were_metrics_is_read() -> None:
    meter = Meter()
    meter.add(outcome(3.0, 1.0))
    meter.settle()
    state = meter.get_state()
    del state["steps"][0]["metrics"]
    meter.set_state(state)
    assert meter.read()["loss"] == 3.0


def test_the_state_holds_the_steps_of_an_unfinished_line() -> None:
    """A checkpoint between two lines: the resumed run's next line is the uninterrupted one's."""
    straight, stopped, resumed = Meter(), Meter(), Meter()
    first, second = outcome(1.1, 3.0, tokens=7, step=4), outcome(2.3, 5.0, tokens=9, step=5)
    for meter in (straight, stopped):
        meter.add(first)
        meter.add(replace(outcome(1.0, 1.0, step=4), loss_total=torch.tensor(math.nan)))
        meter.settle()
    resumed.set_state(json.loads(json.dumps(stopped.get_state(), allow_nan=False)))
    for meter in (straight, resumed):
        meter.add(second)
    expected, found = straight.read(), resumed.read()
    for name in ("loss", "grad_norm", "learning_rate", "skipped_steps"):
        assert found[name] == expected[name]
    assert resumed.get_state()["steps"] == []


def test_memory_is_the_gpus_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    assert memory_bytes() == 123
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory_bytes() > 10_000_000
