"""The implementations fit the Protocols (pyright reads the tuple), and records are plain."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from luthier.contracts.training import (
    Accumulation,
    LossSum,
    MetricSum,
    Progress,
    StepRecord,
    add_metrics,
)

if TYPE_CHECKING:
    from luthier.batches.stream import BatchStream
    from luthier.checkpoints.store import CheckpointStore
    from luthier.contracts.training import (
        BatchSource,
        CheckpointSink,
        Evaluator,
        Objective,
        Observer,
        StopRequest,
    )
    from luthier.engine.interrupt import StopSignals
    from luthier.engine.metrics_file import MetricsFile
    from luthier.evaluation.validation_loss import ValidationLoss
    from luthier.objectives.sft import SupervisedFineTuning

    def implementations(
        stream: BatchStream,
        store: CheckpointStore,
        evaluator: ValidationLoss,
        objective: SupervisedFineTuning,
        metrics: MetricsFile,
        stop: StopSignals,
    ) -> tuple[BatchSource, CheckpointSink, Evaluator, Objective, Observer, StopRequest]:
        return stream, store, evaluator, objective, metrics, stop


def test_progress_is_plain_json() -> None:
    progress = Progress(step=3, num_steps=9, epoch=1 / 3, best_eval_loss=0.1)
    assert Progress(**json.loads(json.dumps(asdict(progress)))) == progress


def metric(total: float | list[float], weight: float) -> MetricSum:
    return MetricSum(torch.tensor(total), torch.tensor(weight))


def test_a_metric_is_divided_once() -> None:
    assert (metric(6.0, 1.0) + metric(0.0, 2.0)).mean() == 2.0
    # Two bins that are 2 too high and 3 too low: their errors do not cancel, within a bin they do.
    assert (metric([5.0, -1.0], 4.0) + metric([-3.0, -2.0], 1.0)).mean() == 1.0
    assert math.isnan(metric(0.0, 0.0).mean())


def test_metrics_are_added_by_name() -> None:
    both = add_metrics({"a": metric(1.0, 1.0), "b": metric(2.0, 1.0)}, {"b": metric(4.0, 2.0)})
    assert {name: found.mean() for name, found in both.items()} == {"a": 1.0, "b": 2.0}


def test_what_is_done_of_a_step_adds_up_and_is_forgotten() -> None:
    done = Accumulation()
    for number in (1.0, 2.0):
        total = torch.tensor(number, requires_grad=True)
        weight = torch.tensor(1.0)
        done.add(LossSum(total, weight, weight, metrics={"a": metric(number, 1.0)}))
    assert (done.num_done, done.loss_total) == (2, torch.tensor(3.0))
    assert done.loss_total is not None
    assert not done.loss_total.requires_grad
    assert done.metrics["a"].mean() == 1.5
    done.clear()
    assert done == Accumulation()


def test_a_record_has_no_metrics_unless_given() -> None:
    one, other = StepRecord(1, 0.1), StepRecord(1, 0.1)
    assert one == other
    assert one.metrics == {}
    assert one.metrics is not other.metrics
