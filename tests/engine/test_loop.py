"""The loop: what a step computes, when things happen, and when it refuses to go on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from luthier.batches.collate import causal_lm_collate
from luthier.contracts.counting import count_rows, count_supervised, count_tokens
from luthier.contracts.training import (
    Accumulation,
    LossSum,
    MetricSum,
    StopAskedError,
)
from luthier.core.errors import RunError
from luthier.engine.guards import DivergedError, Event, Guards
from luthier.engine.loop import add_gradients, train, training_step
from luthier.engine.meter import Meter
from luthier.engine.precision import Precision, choose_precision
from luthier.engine.settings import (
    AdafactorOptimizer,
    AdamWOptimizer,
    GuardSettings,
    ScheduleSettings,
    TrainingSettings,
)
from luthier.engine.update import ReadThenStep, StepWhereFinite, choose_update
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., Any]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal_weights(one: Any, other: Any, tolerance: float = 0.0) -> None:
    expected = dict(other.named_parameters())
    for name, weight in one.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=tolerance, msg=name)


def assert_equal_states(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    state, expected = one.state_dict()["state"], other.state_dict()["state"]
    assert state.keys() == expected.keys()
    for index, values in expected.items():
        for name, value in values.items():
            assert torch.equal(state[index][name], value)


def test_one_batch_of_8_is_8_batches_of_1(make_training: Make, make_rows: Make) -> None:
    rows = make_rows(8)
    big = make_training(rows=rows, batch_size=8)
    small = make_training(rows=rows, batch_size=1, accumulation=8)
    one = training_step(big, next(big.batches.windows()))
    eight = training_step(small, next(small.batches.windows()))
    assert one.loss == pytest.approx(eight.loss, abs=1e-6)
    assert float(one.grad_norm) == pytest.approx(float(eight.grad_norm), abs=1e-5)
    assert (one.num_tokens, one.num_supervised, one.num_rows) == (
        *(eight.num_tokens, eight.num_supervised, 8),
    )
    assert_equal_weights(big.model, small.model, tolerance=1e-6)


def test_a_mean_of_means_would_be_another_step(make_model: Make, make_rows: Make) -> None:
    """The mistake of the field: each micro-batch divided by its own count, then by their number."""
    rows = make_rows(8)
    objective = SupervisedFineTuning()
    gradients = []
    for mean_of_means in (False, True):
        model = make_model()
        batches = [causal_lm_collate([row], pad_id=0) for row in rows]
        weight = sum(objective.weight(batch) for batch in batches)
        for batch in batches:
            loss = objective(model, batch)
            divisor = loss.weight * len(batches) if mean_of_means else weight
            (loss.total / divisor).backward()
        gradients.append(model.lm_head.weight.grad)
    right, naive = gradients
    assert float((right - naive).norm() / right.norm()) > 0.05


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (3, 3), (1, 8)])
def test_every_cut_of_a_window_trains_the_same(
    make_training: Make, make_rows: Make, shape: tuple[int, int]
) -> None:
    size, accumulation = shape
    parts: Any = {"rows": make_rows(8, weighted=True), "schedule": ScheduleSettings()}
    whole = make_training(**parts, batch_size=8, epochs=3)
    cut = make_training(**parts, batch_size=size, accumulation=accumulation, epochs=3)
    train(whole)
    train(cut)
    assert_equal_weights(whole.model, cut.model, tolerance=1e-6)


def test_steps_are_adamw_on_the_mean_loss(make_training: Make, make_model: Make) -> None:
    """Against a loop with torch's own parts and the model's own loss."""
    schedule = ScheduleSettings(
        learning_rate=1e-2, lr_scheduler_type="constant", weight_decay=0.1, max_grad_norm=0.5
    )
    training = make_training(batch_size=4, schedule=schedule)
    model = make_model()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, fused=False)
    windows = training.batches.windows()
    for _ in range(3):
        window = next(windows)
        outcome = training_step(training, window)
        loss = model(**window[0]).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        assert outcome.loss == pytest.approx(loss.item(), abs=1e-5)
        assert float(outcome.grad_norm) == pytest.approx(norm.item(), abs=1e-4)
        assert norm > 0.5
    assert_equal_weights(training.model, model, tolerance=1e-5)


def test_no_clipping_at_zero(make_training: Make) -> None:
    free = make_training(schedule=ScheduleSettings(max_grad_norm=0.0))
    short = make_training(schedule=ScheduleSettings(max_grad_norm=0.01))
    for training in (free, short):
        training.optimizer.step = lambda: None
        training.optimizer.zero_grad = lambda set_to_none: None
    window = next(free.batches.windows())
    free_norm = float(training_step(free, window).grad_norm)
    assert float(training_step(short, window).grad_norm) == pytest.approx(free_norm)

    def length(model: Any) -> float:
        return math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))

    assert length(free.model) == pytest.approx(free_norm, rel=1e-5)
    assert length(short.model) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", [AdamWOptimizer(), AdafactorOptimizer()])
def test_the_loss_falls(
    make_training: Make, make_rows: Make, recorder: Any, optimizer: Any
) -> None:
    training = make_training(
        rows=make_rows(4), epochs=25, optimizer=optimizer, observers=(recorder,)
    )
    train(training)
    losses = recorder.losses()
    assert losses[-1] < losses[0] / 3


def test_lora_changes_adapters_and_nothing_else(make_training: Make, make_model: Make) -> None:
    model = make_model(lora=True)
    before = weights_of(model)
    train(make_training(model=model, max_steps=3))
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {name for name in before if "lora_" in name}


def test_frozen_parameters_stay(make_training: Make, make_model: Make) -> None:
    model = make_model()
    model.requires_grad_(False)
    model.model.layers[1].requires_grad_(True)
    before = weights_of(model)
    train(make_training(model=model, max_steps=3))
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {name for name in before if ".layers.1." in name}


@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing_changes_no_bit(
    make_training: Make, make_model: Make, lora: bool
) -> None:
    plain, saving = make_model(lora=lora, dropout=0.1), make_model(lora=lora, dropout=0.1)
    saving.gradient_checkpointing_enable({"use_reentrant": False})
    calls = []
    layer = saving.get_base_model().model.layers[0] if lora else saving.model.layers[0]
    layer.input_layernorm.register_forward_pre_hook(lambda *_: calls.append(1))
    outcomes = []
    for model in (plain, saving):
        torch.manual_seed(0)
        training = make_training(model=model)
        model.train()
        outcomes.append(training_step(training, next(training.batches.windows())))
    assert outcomes[0] == outcomes[1]
    assert_equal_weights(plain, saving)
    assert len(calls) == 2, "the layer was not computed again, so nothing was checkpointed"


def strict() -> Guards:
    return Guards(GuardSettings(max_nonfinite_steps=0))


class Spoiled(SupervisedFineTuning):
    """Gives a loss, or a gradient, that is no number from the second step on."""

    what = "loss"
    calls = 0

    def __call__(self, model: Any, batch: Any) -> Any:
        loss = super().__call__(model, batch)
        type(self).calls += 1
        if type(self).calls < 2:
            return loss
        if self.what == "loss":
            return replace(loss, total=loss.total * math.nan)
        root = model.lm_head.weight.sum() * 0.0  # sqrt has an infinite slope at 0
        return replace(loss, total=loss.total + root.sqrt())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_no_number_is_not_taken(
    make_training: Make, recorder: Any, sink: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(Spoiled, "what", what)
    monkeypatch.setattr(Spoiled, "calls", 0)
    training = make_training(
        objective=Spoiled(), sink=sink, save_every=1, observers=(recorder,), guards=strict()
    )
    good = make_training(max_steps=1, rows=None)
    train(good)
    with pytest.raises(RunError, match=f"the {what} of step 2 is nan; the step was not taken"):
        train(training)
    assert_equal_weights(training.model, good.model)
    assert_equal_states(training.optimizer, good.optimizer)
    assert [step for step, _ in sink.saved] == [1]
    assert recorder.of("end") == []


def test_a_step_left_out_on_the_device_changes_nothing_and_is_told_later(
    make_training: Make, recorder: Any, sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: one bad step of four, and nobody looks before the log is due."""
    monkeypatch.setattr(Spoiled, "what", "loss")
    monkeypatch.setattr(Spoiled, "calls", 0)
    deferred: dict[str, Any] = {"update": StepWhereFinite(), "logging_steps": 4, "max_steps": 4}
    deferred["guards"] = strict()
    training = make_training(**deferred, objective=Spoiled(), sink=sink, observers=(recorder,))
    good = make_training(max_steps=1)
    train(good)
    with pytest.raises(RunError, match="the loss of step 2 is nan; the step was not taken"):
        train(training)
    assert_equal_weights(training.model, good.model)
    assert_equal_states(training.optimizer, good.optimizer)
    assert [record.step for record in recorder.of("step")] == [1, 2, 3, 4]
    assert all(record.metrics == {} for record in recorder.of("step"))
    assert recorder.of("log") == []


@pytest.mark.parametrize("due", ["eval_every", "save_every"])
def test_nothing_is_evaluated_or_saved_before_the_steps_are_looked_at(
    make_training: Make, sink: Any, monkeypatch: pytest.MonkeyPatch, due: str
) -> None:
    monkeypatch.setattr(Spoiled, "what", "gradient")
    monkeypatch.setattr(Spoiled, "calls", 0)
    evaluated: list[Any] = []
    fields: dict[str, Any] = {
        "update": StepWhereFinite(),
        "logging_steps": 100,
        "sink": sink,
        "guards": strict(),
        "evaluator": lambda model: evaluated.append(model) or {"eval_loss": 1.0},
        due: 3,
    }
    with pytest.raises(RunError, match="the gradient of step 2 is nan"):
        train(make_training(objective=Spoiled(), **fields))
    assert evaluated == sink.saved == []


def test_deferred_steps_log_what_read_ones_log(make_training: Make, new_recorder: Any) -> None:
    logs = []
    for update in (ReadThenStep(), StepWhereFinite()):
        recorder = new_recorder()
        train(make_training(update=update, logging_steps=3, observers=(recorder,)))
        names = ("loss", "grad_norm", "learning_rate")
        logs.append([[log.metrics[name] for name in names] for log in recorder.of("log")])
    assert logs[0] == logs[1]
    assert len(logs[0]) == 4


class Reads(TorchDispatchMode):
    """Counts how often a tensor's value is asked for: on a GPU, each waits for the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Unread(SupervisedFineTuning):
    """Cross-entropy over all positions, so that no shape depends on a value."""

    def __call__(self, model: Any, batch: Any) -> Any:
        logits_BLV = model(batch["input_ids"])[:, :-1]
        targets_BL = batch["labels"][:, 1:]
        total = cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten(), reduction="sum")
        metrics = {
            "positions": MetricSum(total.detach(), torch.full((), targets_BL.numel())),
            "bins": MetricSum(total.detach() * torch.tensor([1.0, -2.0]), torch.ones(())),
        }
        zero = torch.zeros(())
        return LossSum(total, zero, zero, metrics=metrics)


def test_between_lines_of_the_log_the_engine_does_not_wait(make_training: Make) -> None:
    """A step reads the batches, which are on the host, and nothing that was computed."""
    model = torch.nn.Sequential(torch.nn.Embedding(96, 8), torch.nn.Linear(8, 96))
    deferred = make_training(
        model=model, objective=Unread(), update=StepWhereFinite(), accumulation=2
    )
    windows = deferred.batches.windows()
    window = next(windows)
    with Reads() as of_batches:
        float(sum(deferred.objective.weight(batch) for batch in window))
        for count in (count_tokens, count_supervised, count_rows):
            sum(map(count, window))
    assert of_batches.count > 0
    training_step(deferred, window)  # The optimiser's state comes to be.
    meter = Meter()
    with Reads() as of_steps:
        for _ in range(3):
            meter.add(training_step(deferred, next(windows)))
    with Reads() as of_log:
        meter.settle()
    assert of_steps.count == 3 * of_batches.count
    assert of_log.count <= 1, "losses, lengths and metrics of all steps come in one transfer"
    reading = replace(deferred, update=ReadThenStep())
    with Reads() as of_reading:
        outcome = training_step(reading, next(windows))
        float(outcome.loss_total)
    assert of_reading.count > of_batches.count, "the counter counts nothing"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_is_deferred(make_training: Make, make_model: Make) -> None:
    device = torch.device("cuda")
    training = make_training(model=make_model().to(device), device=device, logging_steps=4)
    update = choose_update(training.optimizer, training.precision, device)
    assert update == StepWhereFinite()
    training = replace(training, update=update)
    windows = training.batches.windows()
    outcome = training_step(training, next(windows))
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.update.take(
            training.optimizer, training.precision, outcome.loss_total, outcome.grad_norm
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_window_without_weight_gives_no_gradient(make_training: Make, make_rows: Make) -> None:
    rows = make_rows(2)
    for row in rows:
        row["loss_weights"] = [0.0] * len(row["input_ids"])
    training = make_training(rows=rows)
    before = weights_of(training.model)
    outcome = training_step(training, next(training.batches.windows()))
    assert (outcome.loss, outcome.grad_norm, outcome.num_supervised) == (0.0, 0.0, 0)
    assert all(torch.equal(p, before[n]) for n, p in training.model.named_parameters())


def test_order_of_events(make_training: Make, make_rows: Make, recorder: Any, sink: Any) -> None:
    """Log, then evaluation, then checkpoint; each also after the last step."""
    losses = iter([9.0, 5.0, 7.0])
    training = make_training(
        rows=make_rows(7),
        batch_size=1,
        observers=(recorder,),
        sink=sink,
        logging_steps=3,
        eval_every=4,
        save_every=4,
        eval_on_start=True,
        evaluator=lambda model: {"eval_loss": next(losses)},
    )
    train(training)
    told = [
        f"{kind} {getattr(value, 'step', value)}"
        for kind, value in recorder.events
        if kind != "step"
    ]
    assert told == [
        *("start 0", "evaluation 0", "log 3", "evaluation 4", "checkpoint 4"),
        *("log 6", "log 7", "evaluation 7", "checkpoint 7", "end 7"),
    ]
    assert [record.step for record in recorder.of("step")] == list(range(1, 8))
    assert sink.saved == [(4, {"eval_loss": 5.0}), (7, {"eval_loss": 7.0})]
    assert training.progress.best_eval_loss == 5.0


def test_metrics_of_a_log_are_sums_over_its_steps(make_training: Make, new_recorder: Any) -> None:
    every, by_three = new_recorder(), new_recorder()
    train(make_training(max_steps=3, observers=(every,)))
    train(make_training(max_steps=3, observers=(by_three,), logging_steps=3))
    (log,) = by_three.of("log")
    losses = every.losses()
    assert min(losses) < log.metrics["loss"] < max(losses)
    assert log.metrics["loss"] != pytest.approx(sum(losses) / 3, abs=1e-4), (
        "steps have different token counts, so the mean of their means is not the mean"
    )
    assert log.metrics["learning_rate"] == every.of("log")[-1].metrics["learning_rate"]


class Telling(SupervisedFineTuning):
    """Tells the loss once more, as a metric, and how many micro-batches there were."""

    def __call__(self, model: Any, batch: Any) -> Any:
        loss = super().__call__(model, batch)
        metrics = {
            "again": MetricSum(loss.total.detach(), loss.weight),
            "batches": MetricSum(torch.ones(()), torch.tensor(2.0)),
        }
        return replace(loss, metrics=metrics)


@pytest.mark.parametrize("logging_steps", [1, 2])
def test_an_objectives_metrics_are_logged_as_means_over_the_line(
    make_training: Make, recorder: Any, logging_steps: int
) -> None:
    training = make_training(
        objective=Telling(),
        batch_size=1,
        accumulation=3,
        max_steps=4,
        logging_steps=logging_steps,
        observers=[recorder],
    )
    train(training)
    lines = recorder.of("log")
    assert len(lines) == 4 // logging_steps
    for line in lines:
        assert line.metrics["again"] == pytest.approx(line.metrics["loss"], rel=1e-6)
        assert line.metrics["batches"] == 0.5
    assert training.accumulation == Accumulation()


def test_progress_counts_what_was_computed(make_training: Make, make_rows: Make) -> None:
    rows = make_rows(5)
    progress = train(make_training(rows=rows, accumulation=2, epochs=1.5))
    assert (progress.step, progress.num_steps, progress.epoch) == (3, 3, 1.5)
    assert progress.num_rows_seen == 9
    one_epoch = train(make_training(rows=rows, accumulation=2))
    assert one_epoch.num_tokens_seen == sum(len(row["input_ids"]) for row in rows)
    labels = [label for row in rows for label in row["labels"][1:]]
    assert one_epoch.num_supervised_seen == sum(label != -100 for label in labels)


def test_max_steps_overrides_epochs(make_training: Make) -> None:
    assert train(make_training(epochs=1, max_steps=13)).step == 13
    assert train(make_training(epochs=0.1)).step == 2  # of 11, rounded up


@pytest.mark.parametrize("save_every", [None, 2])
def test_a_stop_request_ends_after_the_step_with_a_checkpoint(
    make_training: Make, recorder: Any, sink: Any, stop_after: Any, save_every: int | None
) -> None:
    # Asked before the first step, then after each one: the fourth answer is after step 3.
    stop = stop_after(3)
    training = make_training(observers=(recorder,), sink=sink, stop=stop, save_every=save_every)
    progress = train(training)
    assert progress.step == 3 < progress.num_steps
    assert sink.saved[-1][0] == 3
    assert [step for step, _ in sink.saved] == ([3] if save_every is None else [2, 3])
    assert recorder.of("end") == [3]
    assert stop.asked == 4


def test_a_stop_before_the_first_step_trains_nothing(
    make_training: Make, sink: Any, stop_after: Any
) -> None:
    assert train(make_training(sink=sink, stop=stop_after(0))).step == 0
    assert sink.saved == []


def test_going_on_reads_no_row_twice(make_training: Make, make_model: Make) -> None:
    """Three steps and three more equal six, with what a checkpoint would carry over."""
    straight = make_training(max_steps=6, accumulation=3)
    train(straight)
    first = make_training(max_steps=6, accumulation=3)
    first.progress.num_steps = 3
    train(first)
    second = make_training(model=first.model, max_steps=6, accumulation=3)
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.batches.set_state(first.batches.get_state())
    second.progress.step = 3
    train(replace(second, eval_on_start=True, evaluator=None))
    assert_equal_weights(straight.model, second.model)
    assert second.progress.epoch == straight.progress.epoch


class SpoiledAt:
    """An objective that gives a loss that is no number at the calls that are named."""

    def __init__(self, *calls: int) -> None:
        self.inner, self.bad, self.calls = SupervisedFineTuning(), calls, 0

    def weight(self, batch: Any) -> torch.Tensor:
        return self.inner.weight(batch)

    def __call__(self, model: Any, batch: Any) -> Any:
        self.calls += 1
        loss = self.inner(model, batch)
        return replace(loss, total=loss.total * math.nan) if self.calls in self.bad else loss


@pytest.mark.parametrize("update", [ReadThenStep(), StepWhereFinite()])
def test_bad_steps_are_passed_over_and_recorded(
    make_training: Make, new_recorder: Any, update: Any
) -> None:
    """Steps 2 and 3 of 5 give no number: the run is the one that was told to pass over them."""
    events: list[Event] = []
    recorder = new_recorder()
    options: dict[str, Any] = {"max_steps": 5, "logging_steps": 5, "update": update}
    found = make_training(
        objective=SpoiledAt(2, 3),
        guards=Guards(record=events.append),
        observers=(recorder,),
        **options,
    )
    told = make_training(guards=Guards(pass_over={2, 3}), **options)
    train(found)
    train(told)
    assert_equal_weights(found.model, told.model)
    assert [(event.kind, event.step) for event in events] == [("nonfinite", 2), ("nonfinite", 3)]
    assert all(len(event.rows) == 2 for event in events)
    assert set(events[0].rows).isdisjoint(events[1].rows)
    (log,) = recorder.of("log")
    assert log.metrics["skipped_steps"] == 2
    assert math.isfinite(log.metrics["loss"])
    assert found.progress.step == 5


def test_too_many_bad_steps_in_a_row_end_the_run(make_training: Make) -> None:
    settings = GuardSettings(max_nonfinite_steps=1)
    message = r"step 4 is nan; .* nor was the one before it"
    with pytest.raises(DivergedError, match=message) as caught:
        train(make_training(objective=SpoiledAt(1, 3, 4), guards=Guards(settings)))
    assert caught.value.first_step == 3
    assert caught.value.pass_over == (2, 3, 4)


def test_a_stop_inside_a_step_leaves_what_is_done_of_it(
    make_training: Make, sink: Any, stop_after: Any
) -> None:
    """Steps of 4 micro-batches; the stop comes when 2 of the second step's are done."""
    options: dict[str, Any] = {"batch_size": 1, "accumulation": 4, "max_steps": 4}
    straight = make_training(**options)
    train(straight)
    # Asked before the run, 3 times inside of each step (never before its first), after each step.
    stop = stop_after(1 + 4 + 1)
    stopped = make_training(**options, sink=sink, stop=stop)
    progress = train(stopped)
    assert progress.step == 1
    assert stopped.accumulation.num_done == 2
    assert sink.saved == [(1, {})]
    assert sink.waited == 1
    assert stop.has_work
    resumed = make_training(model=stopped.model, **options)
    resumed.optimizer.load_state_dict(copy.deepcopy(stopped.optimizer.state_dict()))
    resumed.batches.set_state(stopped.batches.get_state())
    resumed.progress.step = 1
    resumed = replace(resumed, accumulation=stopped.accumulation)
    train(resumed)
    assert_equal_weights(straight.model, resumed.model)
    assert resumed.accumulation == Accumulation()


def test_a_passed_over_step_drops_what_was_done_of_it(make_training: Make) -> None:
    training = make_training(batch_size=1, accumulation=4, guards=Guards(pass_over={1}))
    before = weights_of(training.model)
    windows = training.batches.windows()
    window = next(windows)
    add_gradients(training, window[:2], 10.0, training.accumulation)
    outcome = training_step(training, window)
    assert (outcome.num_rows, outcome.loss_weight) == (0, 0.0)
    assert all(torch.equal(p, before[n]) for n, p in training.model.named_parameters())
    assert training.accumulation.num_done == 0


def test_sigusr1_saves_and_goes_on(make_training: Make, sink: Any, stop_after: Any) -> None:
    stop = stop_after(None)
    stop.wanted_checkpoints = 1
    progress = train(make_training(max_steps=3, sink=sink, stop=stop))
    assert progress.step == 3
    assert [step for step, _ in sink.saved] == [1]


def test_a_stop_gives_up_an_evaluation_and_the_next_start_makes_it(
    make_training: Make, sink: Any, recorder: Any
) -> None:
    def given_up(model: Any) -> dict[str, float]:
        raise StopAskedError

    stopped = make_training(max_steps=2, sink=sink, eval_every=2, save_every=2, evaluator=given_up)
    progress = train(stopped)
    assert (progress.step, progress.evaluation_is_due, progress.finished) == (2, True, False)
    assert sink.saved == [(2, {})]
    resumed = make_training(
        max_steps=2,
        sink=sink,
        eval_every=2,
        save_every=2,
        evaluator=lambda model: {"eval_loss": 1.5},
        observers=(recorder,),
    )
    resumed.progress.step, resumed.progress.evaluation_is_due = 2, True
    progress = train(resumed)
    assert progress.finished
    assert sink.saved[1:] == [(2, {"eval_loss": 1.5})]
    assert [record.step for record in recorder.of("evaluation")] == [2]
    assert recorder.of("step") == []


def test_a_run_that_no_longer_improves_ends(make_training: Make, sink: Any) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    progress = train(
        make_training(
            eval_every=1,
            sink=sink,
            guards=Guards(GuardSettings(early_stopping_patience=2)),
            evaluator=lambda model: {"eval_loss": next(losses)},
        )
    )
    assert (progress.step, progress.ended_early, progress.finished) == (4, True, True)
    assert sink.saved == [(4, {"eval_loss": 2.25})]


def test_evaluation_on_start_only_at_the_start(make_training: Make, recorder: Any) -> None:
    training = make_training(
        max_steps=2,
        eval_on_start=True,
        evaluator=lambda model: {"eval_loss": 1.0},
        observers=(recorder,),
    )
    training.progress.step = 1
    train(training)
    assert recorder.of("start") == [1]
    assert recorder.of("evaluation") == []


def test_bfloat16_trains_close_to_float32(make_training: Make, new_recorder: Any) -> None:
    exact, rough = new_recorder(), new_recorder()
    train(make_training(epochs=2, observers=(exact,)))
    training = make_training(
        epochs=2, observers=(rough,), precision=Precision(torch.bfloat16, "cpu")
    )
    train(training)
    assert rough.losses() == pytest.approx(exact.losses(), abs=0.3)
    assert rough.losses() != exact.losses()
    assert {p.dtype for p in training.model.parameters()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_half_precision_on_a_gpu(
    make_training: Make, make_model: Make, new_recorder: Any, kind: str
) -> None:
    device = torch.device("cuda")
    precision, notice = choose_precision(TrainingSettings.model_validate({kind: True}), device)
    assert notice is None
    assert (precision.scaler is not None) == (kind == "fp16")
    exact, rough = new_recorder(), new_recorder()
    train(make_training(epochs=2, observers=(exact,)))
    train(
        make_training(
            model=make_model().to(device),
            device=device,
            epochs=2,
            observers=(rough,),
            precision=precision,
        )
    )
    # The scaler may skip the first steps while it finds its scale.
    assert rough.losses()[0] == pytest.approx(exact.losses()[0], abs=0.05)
    assert rough.losses()[-1] == pytest.approx(exact.losses()[-1], abs=0.5)


class Overflowing:
    """A loss scaler that found an infinite gradient, as float16's does now and then."""

    def __init__(self) -> None:
        self.skipped = 0

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * math.inf

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None: ...

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.skipped += 1

    def update(self) -> None: ...


def test_a_scaler_may_skip_a_step_that_overflowed(make_training: Make) -> None:
    scaler: Any = Overflowing()
    training = make_training(max_steps=2, precision=Precision(torch.float32, "cpu", scaler))
    before = weights_of(training.model)
    assert train(training).step == 2
    assert scaler.skipped == 2
    assert all(torch.equal(p, before[n]) for n, p in training.model.named_parameters())
