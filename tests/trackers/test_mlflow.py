"""MLflow with a database on the disk, read back through its client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from luthier.contracts.training import SampleRecord
from luthier.trackers.mlflow import LONGEST_VALUE, MOST_PARAMETERS, SAMPLES, MLflow
from luthier.trackers.tracker import TrackedRun

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (extra: mlflow)")


def test_a_run_that_is_stopped_and_goes_on(
    tracked_run: Callable[..., TrackedRun],
    samples: SampleRecord,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    tracker = MLflow()
    many = {f"setting_{number}": "x" * 9000 for number in range(MOST_PARAMETERS)}
    described = tracked_run()
    described = replace(described, settings={**described.settings, **many})
    opened = tracker.open(described)
    tracker.log(1, {"train/loss": 2.5, "train/rewards/margins": 0.5})
    tracker.log(2, {"train/loss": 2.0})
    tracker.log_samples(samples)
    tracker.log_samples(samples)
    tracker.close(failed=True)
    client = mlflow.MlflowClient()
    assert client.get_run(opened.id).info.status == "FAILED"
    again = MLflow()
    assert again.open(tracked_run(step=2, earlier_id=opened.id)).id == opened.id
    again.log(3, {"train/loss": 1.5})
    again.close(failed=False)

    run = client.get_run(opened.id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params["lora_target"] == "['q', 'v']"
    assert run.data.params["setting_99"] == "x" * LONGEST_VALUE
    history = client.get_metric_history(opened.id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.5), (2, 2.0), (3, 1.5)]
    table = client.load_table(run.info.experiment_id, SAMPLES, run_ids=[opened.id])
    assert table["answer"].tolist() == ["Hi | there", "你好"] * 2
    mlflow.set_tracking_uri("")
