"""A range test: rates that grow, losses beside the untrained model's, and how it ends."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch

from luthier.contracts.training import LossSum, Progress, StepRecord
from luthier.engine.guards import Guards
from luthier.engine.loop import train
from luthier.engine.lr_range import (
    RangeWatch,
    exponential_rates,
    find_range,
    untrained_losses,
)
from luthier.engine.settings import GuardSettings
from luthier.engine.update import StepWhereFinite
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., Any]


def nobody(done: int, total: int) -> None:
    """Tell nobody how far it is."""


def step(watch: RangeWatch, number: int, loss: float, rate: float, **more: float) -> None:
    """Let a watch see a step as the loop tells it where each step is read."""
    watch.on_step(StepRecord(number, 0.0, {"loss": loss}))
    watch.on_log(StepRecord(number, 0.0, {"loss": 0.0, "learning_rate": rate, **more}))


def test_rates_grow_by_the_same_factor_to_the_highest_and_stay_there():
    rate = exponential_rates(1e-7, 1.0, 8)
    assert [rate(i) for i in range(8)] == pytest.approx([10.0**p for p in range(-7, 1)])
    assert (rate(0), rate(7), rate(9)) == (1e-7, 1.0, 1.0)


def test_a_loss_belongs_to_the_rate_before_it(stop_after: Make):
    watch = RangeWatch([4.0, 2.0, 3.0], 2, stop_after(None))
    for number, (loss, rate) in enumerate([(4.0, 0.1), (1.5, 0.2), (2.0, 0.3)], start=1):
        step(watch, number, loss, rate)
    # Beside the untrained model's on the same rows: 0.5 and 1 lower, below a mean of 3.
    assert watch.rates == [0.1, 0.2]
    assert watch.losses == [2.5, 2.0]
    curve = watch.curve()
    assert (curve.start, curve.has_diverged) == (3.0, False)


def test_where_the_host_does_not_read_each_step_the_log_tells_the_loss(stop_after: Make):
    watch = RangeWatch([1.0, 1.0], 2, stop_after(None))
    for number, loss in ((1, 1.0), (2, 0.25)):
        watch.on_step(StepRecord(number, 0.0, {}))
        watch.on_log(StepRecord(number, 0.0, {"loss": loss, "learning_rate": 0.1}))
    assert watch.losses == [0.25]
    watch.on_step(StepRecord(2, 0.0, {}))
    skipped = {"loss": 0.0, "learning_rate": 0.1, "skipped_steps": 1.0}
    watch.on_log(StepRecord(2, 0.0, skipped))
    assert (watch.losses, watch.end) == ([0.25], "not_finite")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_it(stop_after: Make, loss: float):
    watch = RangeWatch([1.0] * 3, 2, stop_after(None))
    step(watch, 1, 1.0, 0.1)
    assert not watch.requested
    step(watch, 2, loss, 0.2)
    assert watch.requested
    assert (watch.end, watch.losses) == ("not_finite", [])
    assert watch.curve().has_diverged


@pytest.mark.parametrize(("may_overflow", "end"), [(False, "not_finite"), (True, None)])
def test_a_skipped_step_ends_it_but_for_float16s_overflows(
    stop_after: Make, may_overflow: bool, end: str | None
):
    watch = RangeWatch([1.0] * 3, 2, stop_after(None), may_overflow=may_overflow)
    step(watch, 1, 1.0, 0.1, skipped_steps=1.0)
    assert watch.end == end


@pytest.mark.parametrize(("loss", "end"), [(3.9, None), (4.1, "diverged")])
def test_it_ends_where_the_loss_is_four_times_the_best(
    stop_after: Make, loss: float, end: str | None
):
    # Ten rates: nothing is smoothed.
    watch = RangeWatch([1.0] * 4, 10, stop_after(None))
    step(watch, 1, 1.0, 0.1)
    step(watch, 2, 1.0, 0.2)
    step(watch, 3, loss, 0.3)
    assert watch.end == end


def test_one_high_loss_is_smoothed_away(stop_after: Make):
    watch = RangeWatch([1.0] * 30, 100, stop_after(None))
    for number in range(1, 30):
        step(watch, number, 10.0 if number == 25 else 1.0, 0.1)
    assert watch.end is None


def test_the_user_ends_it_and_asks_for_no_checkpoint(stop_after: Make):
    user = stop_after(0)
    watch = RangeWatch([1.0], 10, user)
    watch.on_start(Progress(num_steps=10))
    assert user.has_work
    assert watch.requested
    user.wanted_checkpoints = 1
    assert not watch.take_checkpoint_request()
    assert not user.take_checkpoint_request()
    watch.on_end(Progress(step=3, num_steps=10))
    assert watch.end == "stopped"


def test_at_its_last_step_it_is_at_the_highest_rate(stop_after: Make):
    watch = RangeWatch([1.0], 10, stop_after(None))
    watch.on_end(Progress(step=10, num_steps=10))
    assert watch.end == "max_lr"


def test_a_test_trains_and_writes_nothing(make_training: Make, sink: Any, recorder: Any):
    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        raise AssertionError("a test evaluates nothing")

    run = make_training(
        sink=sink, observers=(recorder,), evaluator=evaluate, eval_on_start=True, save_every=1
    )
    seen: list[tuple[int, int]] = []
    watch = find_range(
        run, min_lr=1e-6, max_lr=1e-2, num_steps=12, working=lambda *told: seen.append(told)
    )
    assert watch.end == "max_lr"
    assert seen == [(i, 12) for i in range(1, 13)]
    assert watch.rates == pytest.approx([10 ** (-6 + 4 * i / 10) for i in range(11)])
    assert sink.saved == []
    assert [record.step for record in recorder.of("log")] == list(range(1, 13))
    rates = [record.metrics["learning_rate"] for record in recorder.of("log")]
    assert rates == pytest.approx([*watch.rates, 1e-2])
    # At the lowest rates nothing changes, whichever rows a step has; then it learns.
    assert watch.losses[0] == pytest.approx(watch.start, abs=1e-3)
    assert watch.losses[-1] < watch.start - 0.01


def test_its_steps_are_those_of_the_run(make_training: Make, make_model: Make):
    model = make_model(lora=True, dropout=0.3)
    plain, tested = (make_training(model=copy.deepcopy(model), accumulation=2) for _ in range(2))
    rate = exponential_rates(1e-4, 1e-2, 4)
    torch.manual_seed(5)
    plain.progress.num_steps = 5
    train(replace(plain, rate=rate))
    torch.manual_seed(5)
    find_range(tested, min_lr=1e-4, max_lr=1e-2, num_steps=5, working=nobody)
    expected = dict(plain.model.named_parameters())
    for name, weight in tested.model.named_parameters():
        assert torch.equal(weight, expected[name]), name


def test_divergence_ends_it_without_an_error(make_training: Make):
    # Such guards would end a run, or send it back.
    strict = GuardSettings(max_nonfinite_steps=0, on_loss_spike="rollback")
    run = make_training(guards=Guards(strict), max_grad_norm=0.0)
    watch = find_range(run, min_lr=1e-6, max_lr=1e6, num_steps=40, working=nobody)
    assert watch.end in ("diverged", "not_finite")
    assert 3 < len(watch.losses) < 39
    assert all(map(math.isfinite, watch.losses))


class BrokenAt:
    """An objective whose loss is NaN from the n-th call on."""

    def __init__(self, call: int) -> None:
        self.calls, self.broken_at = 0, call
        self.plain = SupervisedFineTuning()

    def weight(self, batch: Any) -> torch.Tensor:
        return self.plain.weight(batch)

    def __call__(self, model: torch.nn.Module, batch: Any) -> LossSum:
        self.calls += 1
        loss = self.plain(model, batch)
        return replace(loss, total=loss.total * (math.nan if self.calls >= self.broken_at else 1))


@pytest.mark.parametrize("update", [None, StepWhereFinite()])
def test_nan_ends_it_without_an_error(make_training: Make, update: Any):
    fields = {} if update is None else {"update": update}
    run = make_training(objective=BrokenAt(8 + 6), **fields)
    watch = find_range(run, min_lr=1e-6, max_lr=1e-3, num_steps=8, working=nobody)
    # The first eight calls are of the untrained model; the sixth step after them is broken.
    assert (watch.end, len(watch.losses)) == ("not_finite", 4)


def test_a_model_that_is_broken_before_it_starts(make_training: Make):
    watch = find_range(
        make_training(objective=BrokenAt(1)), min_lr=1e-6, max_lr=1.0, num_steps=8, working=nobody
    )
    assert (watch.end, watch.losses) == ("not_finite", [])
    assert math.isnan(watch.curve().start)


def test_the_user_stops_it_on_the_way(make_training: Make, stop_after: Make):
    run = make_training(stop=stop_after(4))
    watch = find_range(run, min_lr=1e-6, max_lr=1e-3, num_steps=10, working=nobody)
    assert watch.end == "stopped"
    assert 0 < len(watch.losses) < 9


def test_untrained_losses_are_the_losses_and_change_nothing(make_training: Make):
    run = make_training(accumulation=2)
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    position, random = run.batches.get_state(), torch.get_rng_state()
    found = untrained_losses(run, 4, nobody)
    assert run.batches.get_state() == position
    assert torch.equal(torch.get_rng_state(), random)
    for name, weight in run.model.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None
    for loss, window in zip(found, islice(run.batches.windows(), 4), strict=True):
        sums = [run.objective(run.model, batch) for batch in window]
        total = sum(float(one.total.detach()) for one in sums)
        assert loss == pytest.approx(total / sum(float(one.weight) for one in sums))


def test_dropout_is_drawn_as_in_the_training(make_training: Make, make_model: Make):
    model = make_model(lora=True, dropout=0.5)
    torch.manual_seed(7)
    watch = find_range(
        make_training(model=model), min_lr=1e-12, max_lr=1e-11, num_steps=6, working=nobody
    )
    # Nothing is learnt at such rates: where the same was drawn, the losses are the same.
    assert watch.losses == pytest.approx([watch.start] * 5, abs=1e-5)
