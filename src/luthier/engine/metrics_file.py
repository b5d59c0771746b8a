"""metrics.jsonl: one record a logged step or evaluation; everything drawn is drawn from here."""

from __future__ import annotations

import json
import time
from pathlib import Path

from luthier.contracts.training import Progress, StepRecord
from luthier.core.files import append_jsonl, write_text


class MetricsFile:
    """Writes the metrics of a run; implements `Observer`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started_s = time.time()

    def on_start(self, progress: Progress) -> None:
        """Drop records after the step that the run goes on from: they will be made again."""
        if self._path.exists():
            kept = [line for line in _whole_lines(self._path) if line["step"] <= progress.step]
            if progress.step == 0:
                kept = []
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            write_text(self._path, text)

    def on_step(self, record: StepRecord) -> None:
        """Steps between two lines of the log are not written."""

    def on_log(self, record: StepRecord) -> None:
        """Write the training metrics."""
        self._write("train", record)

    def on_evaluation(self, record: StepRecord) -> None:
        """Write the validation metrics."""
        self._write("eval", record)

    def on_checkpoint(self, step: int, path: str) -> None:
        """Checkpoints have manifests of their own."""

    def on_end(self, progress: Progress) -> None:
        """Everything is written already."""

    def _write(self, kind: str, record: StepRecord) -> None:
        head = {"kind": kind, "step": record.step, "epoch": round(record.epoch, 6)}
        clock = {"elapsed_seconds": round(time.time() - self._started_s, 3)}
        append_jsonl(self._path, head | dict(record.metrics) | clock)


def read_metrics(path: Path) -> list[dict[str, float | str]]:
    """Read a metrics file; a last line that a killed run left torn is not read."""
    return _whole_lines(path) if path.exists() else []


def _whole_lines(path: Path) -> list[dict[str, float | str]]:
    records: list[dict[str, float | str]] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records
