"""metrics.jsonl: one record a logged step or evaluation; everything drawn is drawn from here."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from luthier.contracts.training import Progress, SampleRecord, StepRecord
from luthier.core.errors import RunError
from luthier.core.files import append_jsonl, write_jsonl


class MetricsFile:
    """Writes the metrics of a run; implements `Observer`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started_s = time.time()
        self._epoch = 0.0

    def on_start(self, progress: Progress) -> None:
        """Drop records after the step that the run goes on from: they will be made again."""
        self._epoch = progress.epoch
        if self._path.exists():
            kept = [line for line in _whole_lines(self._path) if line["step"] <= progress.step]
            if progress.step == 0 and progress.best_eval_loss is None:
                kept = []
            write_jsonl(self._path, kept)

    def on_step(self, record: StepRecord) -> None:
        """Steps between two lines of the log are not written."""
        self._epoch = record.epoch

    def on_log(self, record: StepRecord) -> None:
        """Write the training metrics."""
        self._write("train", record)

    def on_evaluation(self, record: StepRecord) -> None:
        """Write the validation metrics."""
        self._write("eval", record)

    def on_samples(self, record: SampleRecord) -> None:
        """Write the time that they took; what was said stands in a file of its own."""
        self._write("sample", StepRecord(record.step, record.epoch, {"seconds": record.seconds}))

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """Write the time that training waited; checkpoints have manifests of their own."""
        self._write("save", StepRecord(step, self._epoch, {"seconds": seconds}))

    def on_end(self, progress: Progress) -> None:
        """Everything is written already."""

    def _write(self, kind: str, record: StepRecord) -> None:
        head = {"kind": kind, "step": record.step, "epoch": round(record.epoch, 6)}
        clock = {"elapsed_seconds": round(time.time() - self._started_s, 3)}
        append_jsonl(self._path, head | _plain(record) | clock)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line that a killed run left torn is not read.

    Raises:
        RunError: Another line is no record.
    """
    return _whole_lines(path) if path.exists() else []


def _plain(record: StepRecord) -> dict[str, float | None]:
    # JSON has neither NaN nor infinity: readers other than Python's would refuse the whole line.
    return {k: v if math.isfinite(v) else None for k, v in record.metrics.items()}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    *whole, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(whole, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict) or "step" not in record:
            raise RunError(
                "this line is no record of a step",
                where=f"{path}:{number}",
                mend="Remove the line; nothing but the drawn curve depends on it.",
            )
        records.append(record)
    return records
