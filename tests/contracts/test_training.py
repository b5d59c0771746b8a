"""The implementations fit the Protocols (pyright reads the tuple), and records are plain."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from luthier.contracts.training import Progress, StepRecord

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


def test_a_record_has_no_metrics_unless_given() -> None:
    one, other = StepRecord(1, 0.1), StepRecord(1, 0.1)
    assert one == other
    assert one.metrics == {}
    assert one.metrics is not other.metrics
