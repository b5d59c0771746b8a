"""metrics.jsonl: what is written, what is kept on resume, what a torn line does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.training import Progress, SampleRecord, StepRecord
from luthier.core.errors import RunError
from luthier.engine.metrics_file import MetricsFile, read_metrics


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def write_steps(path: Path, steps: range, start: int = 0) -> None:
    file = MetricsFile(path)
    file.on_start(Progress(step=start))
    for step in steps:
        record = StepRecord(step, step / 3, {"loss": 10.0 - step})
        file.on_step(record)
        file.on_log(record)
        file.on_checkpoint(step, "somewhere", 0.25)
    file.on_evaluation(StepRecord(steps[-1], steps[-1] / 3, {"eval_loss": 0.5}))
    file.on_samples(SampleRecord(steps[-1], steps[-1] / 3, (), 0.75))
    file.on_end(Progress())


def test_one_record_a_log_and_an_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 3))
    records = read_metrics(path)
    assert all(record.pop("elapsed_seconds") >= 0 for record in records)
    assert records == [
        {"kind": "train", "step": 1, "epoch": 0.333333, "loss": 9.0},
        {"kind": "save", "step": 1, "epoch": 0.333333, "seconds": 0.25},
        {"kind": "train", "step": 2, "epoch": 0.666667, "loss": 8.0},
        {"kind": "save", "step": 2, "epoch": 0.666667, "seconds": 0.25},
        {"kind": "eval", "step": 2, "epoch": 0.666667, "eval_loss": 0.5},
        {"kind": "sample", "step": 2, "epoch": 0.666667, "seconds": 0.75},
    ]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    values = {"loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.5}
    MetricsFile(path).on_log(StepRecord(1, 0.1, values))
    record = json.loads(path.read_text(), parse_constant=refuse)
    assert (record["loss"], record["grad_norm"], record["learning_rate"]) == (None, None, 0.5)


def test_going_on_drops_what_will_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 6))
    write_steps(path, range(4, 6), start=3)
    steps = [(record["kind"], record["step"]) for record in read_metrics(path)]
    ends = [("eval", 5), ("sample", 5)]
    assert steps == [*((kind, step) for step in range(1, 6) for kind in ("train", "save")), *ends]


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).on_evaluation(StepRecord(0, 0.0, {"eval_loss": 9.0}))
    write_steps(path, range(1, 2))
    kinds = [record["kind"] for record in read_metrics(path)]
    assert kinds == ["train", "save", "eval", "sample"]


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 3))
    whole = read_metrics(path)
    with path.open("ab") as stream:
        stream.write('{"kind": "train", "step": 3, "note": "é'.encode()[:-1])
    assert read_metrics(path) == whole
    write_steps(path, range(3, 4), start=2)
    assert [record["step"] for record in read_metrics(path)] == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("line", ["\0\0\0", "[1]", '{"loss": 1.0}', '{"step": 1'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 3))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(RunError, match="this line is no record of a step") as caught:
        read_metrics(path)
    assert caught.value.where == f"{path}:7"


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
