"""A few rows with the loss of each of their tokens, before training and after, for the report.

In: a job and its rows, those of validation where it has any. Out: shown_rows.json in the run's
folder, so that a page can be made without a model. At most four rows of at most 400 tokens, passed
through the model one by one: about the time of one training step in all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from luthier.contracts.notice import Notice
from luthier.core.files import write_json
from luthier.core.seeds import derive_seed
from luthier.dataset.prepared import row_lengths
from luthier.engine.memory import free_memory, is_out_of_memory
from luthier.evaluation.token_losses import token_losses
from luthier.recipes.job import Job
from luthier.recipes.run_report import SHOWN_ROWS
from luthier.recipes.shown_rows import answers_of, show_row
from luthier.recipes.stages import stage_of

MOST_ROWS = 4
MOST_TOKENS = 400

Told = Callable[[Notice], None]


def measure_before(job: Job, tell: Told) -> None:
    """Write down what the model loses on some rows before its first step.

    Args:
        job: What is to be trained.
        tell: Told where memory is too short for it.
    """
    rows = _measured(job, tell)
    if rows:
        found = [_at("before", row) for row in rows]
        write_json(job.folder / SHOWN_ROWS, {"step": None, "has_before": True, "rows": found})


def measure_after(job: Job, step: int, tell: Told) -> None:
    """Add what it loses on the same rows after its last step.

    Args:
        job: What was trained.
        step: The last one.
        tell: Told where memory is too short for it.
    """
    rows = _measured(job, tell)
    if not rows:
        return
    path = job.folder / SHOWN_ROWS
    before = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    # A run that goes on may do so on other rows.
    is_same = [_texts(row) for row in before] == [_texts(row) for row in rows]
    found = [_at("after", row) for row in rows]
    if is_same:
        for row, earlier in zip(found, before, strict=True):
            for piece, old in zip(row["pieces"], earlier["pieces"], strict=True):
                piece["before"] = old["before"]
    write_json(path, {"step": step, "has_before": is_same, "rows": found})


def _measured(job: Job, tell: Told) -> list[dict[str, Any]]:
    """Return the rows with the losses of their pieces; none where tokens have none."""
    # DeepSpeed may have parted the weights.
    if stage_of(job.config).model_kind != "causal_lm" or job.config.run.deepspeed is not None:
        return []
    found: list[dict[str, Any]] = []
    try:
        for judgement, row in _rows(job):
            losses = token_losses(job.model, row, precision=job.precision, device=job.device)
            shown = show_row(row, job.data.tokenizer, losses, judgement)
            pieces = [
                {"text": piece.text, "taught": piece.taught, "loss": piece.loss}
                for piece in shown.pieces
            ]
            found.append(
                {
                    "origin": Path(shown.origin).name,
                    "side": "train" if job.data.prepared.val is None else "val",
                    "judgement": judgement,
                    "pieces": pieces,
                }
            )
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        free_memory()
        tell(Notice("report", "", "", "memory is too short for the losses of single tokens"))
        return []
    # In prompts that the model answers itself nothing is taught.
    return [row for row in found if any(piece["taught"] for piece in row["pieces"])]


def _rows(job: Job) -> list[tuple[str | None, dict[str, Any]]]:
    """Draw rows by the run's seed, short ones where there are any, cut to a length."""
    rows = job.data.prepared.train if job.data.prepared.val is None else job.data.prepared.val
    lengths = row_lengths(rows)
    random = np.random.default_rng(derive_seed(job.config.run.seed, "report"))
    order: list[int] = random.permutation(len(lengths)).tolist()
    order.sort(key=lambda index: lengths[index] > MOST_TOKENS)
    drawn: list[tuple[str | None, dict[str, Any]]] = []
    for index in order[:MOST_ROWS]:
        answers = answers_of(rows[index])
        if len(drawn) + len(answers) > MOST_ROWS:
            break
        drawn += [(judgement, _cut(row)) for judgement, row in answers]
    return drawn


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, **{name: row[name][:MOST_TOKENS] for name in ("input_ids", "labels")}}


def _at(moment: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the losses of its pieces under the name of a moment."""
    pieces = [
        {"text": piece["text"], "taught": piece["taught"], moment: piece["loss"]}
        for piece in row["pieces"]
    ]
    return {**row, "pieces": pieces}


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [piece["text"] for piece in row["pieces"]]
