"""What an evaluation found, and how it is written down.

    evaluations/NAME.json             metrics with intervals, and the comparison with the base
    evaluations/NAME.answers.jsonl    each prompt, reference and answer (with --predict)

Shape suffixes: none; numbers of a row are looked up by the row's place among those that were
measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.core.clock import now
from luthier.core.errors import RunError
from luthier.core.files import write_json, write_text
from luthier.evaluation.intervals import Difference, Estimate

FOLDER = "evaluations"
"""Folder in a run's folder."""


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One line of the table.

    Attributes:
        estimate: The tuned model's.
        how: How it is computed.
        base: The base's; None without one.
        difference: Between the two, on the same rows; None without a base or without rows.
    """

    estimate: Estimate
    how: str = ""
    base: Estimate | None = None
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A row on which the tuned model differs from the base.

    Attributes:
        metric: The one that it is measured by.
        base: Of the base, tuned: of the tuned model.
    """

    metric: str
    origin: str
    prompt: str
    reference: str
    base: float
    tuned: float
    base_answer: str | None
    tuned_answer: str | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `luthier eval` shows and writes.

    Attributes:
        name: What the files are called.
        model: As the user named it.
        base: What it is held against; None without.
        data: Path, hash and number of rows; empty where only benchmark tasks ran.
        metrics: By name, in the order in which they are shown.
        changed: The rows that changed most, those that became better first.
        left_out: Origin and reason of each row that was not measured.
        notes: What the user should know, a sentence each.
        predictions: Rows of the answers' file; None where it was not asked for.
        answers_file: Its name.
    """

    name: str
    model: str
    base: str | None
    data: Mapping[str, Any]
    metrics: Mapping[str, MetricResult]
    changed: Sequence[Changed] = ()
    left_out: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    predictions: Sequence[Mapping[str, Any]] | None = None
    files: list[Path] = field(default_factory=list[Path])

    @property
    def answers_file(self) -> str | None:
        """Name of the file of the answers; None where there is none."""
        return None if self.predictions is None else f"{self.name}.answers.jsonl"

    def as_json(self) -> dict[str, Any]:
        """Return what NAME.json holds."""
        return {
            "name": self.name,
            "model": self.model,
            "base": self.base is not None,
            "data": dict(self.data),
            "metrics": {
                name: {**_estimate(found.estimate), "how": found.how}
                for name, found in self.metrics.items()
            },
            "versus": self._versus(),
            "left_out": [{"origin": origin, "reason": why} for origin, why in self.left_out],
            "notes": list(self.notes),
            "answers": self.answers_file,
            "created": now(),
        }

    def _versus(self) -> dict[str, Any] | None:
        if self.base is None:
            return None
        return {
            "model": self.base,
            "metrics": {
                name: _comparison(found.base, found.difference)
                for name, found in self.metrics.items()
                if found.base is not None
            },
            "changed": [
                {slot: _plain(getattr(row, slot)) for slot in Changed.__slots__}
                for row in self.changed
            ],
        }


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write the files of an evaluation; an earlier one of the same name is replaced.

    Args:
        evaluation: Its `files` are filled in.
        folder: Where to; it need not exist.

    Raises:
        RunError: They can't be written.
    """
    try:
        if evaluation.predictions is not None:
            lines = (json.dumps(row, ensure_ascii=False) for row in evaluation.predictions)
            path = folder / str(evaluation.answers_file)
            write_text(path, "".join(f"{line}\n" for line in lines))
            evaluation.files.append(path)
        path = folder / f"{evaluation.name}.json"
        write_json(path, evaluation.as_json())
        evaluation.files.append(path)
    except OSError as error:
        raise RunError(
            f"the evaluation can't be written: {error.strerror or error}",
            where=str(folder),
            mend="Make room, or name another folder: --out FOLDER",
        ) from error


def _estimate(found: Estimate) -> dict[str, Any]:
    return {
        "value": _plain(found.value),
        "low": _plain(found.low),
        "high": _plain(found.high),
        "n": found.num_rows,
    }


def _comparison(base: Estimate, difference: Difference | None) -> dict[str, Any]:
    found: dict[str, Any] = {"base": _estimate(base), "difference": None}
    if difference is not None:
        found["difference"] = _estimate(difference.estimate)
        found |= {
            "wins": difference.wins,
            "losses": difference.losses,
            "ties": difference.ties,
        }
    return found


def _plain(value: Any) -> Any:
    # JSON has neither NaN nor infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value
