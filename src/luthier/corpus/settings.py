"""Settings of the corpus: which files, which rows, which split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from luthier.contracts.settings import Settings


class CorpusSettings(Settings):
    """Where the rows come from and which of them are kept."""

    train_file: str | list[str] | None = None
    """Training data: a json, jsonl, csv or parquet file, a folder of these, or a hub name."""

    val_file: str | list[str] | None = None
    """Validation data, in the same forms. Without it, `val_size` cuts it from the training rows."""

    dataset: str | list[str] | None = None
    """Names of entries of dataset_info.json in `dataset_dir` (as in LLaMA-Factory)."""

    dataset_dir: str = "data"
    """Folder that holds dataset_info.json and the files that it names."""

    val_size: float = Field(default=0.0, ge=0)
    """Validation rows cut from the training rows: a share below 1, or a number from 1 up."""

    stratify_by: str = "length"
    """Keep this alike on both sides of the split: `length` (in tokens) or the name of a column."""

    max_samples: int | None = Field(default=None, gt=0)
    """Use at most this many training rows, drawn by seed. For trying things out."""

    min_answer_chars: int = Field(default=1, ge=0)
    """Drop rows whose answer has fewer characters after stripping. The lecture's filter is 6."""

    task_column: str | None = None
    """Column that names a row's task, for `task_weights`."""

    task_weights: dict[str, float] | None = None
    """Weight of each task in the loss. Tasks that are not named here weigh 1."""

    on_bad_row: Literal["error", "skip"] = "error"
    """A row that can't be used ends the run, or is counted and kept in rejected.jsonl."""

    @model_validator(mode="after")
    def _check(self) -> CorpusSettings:
        if self.train_file is not None and self.dataset is not None:
            raise ValueError("train_file and dataset are two names for the same thing: give one")
        if self.val_file is not None and self.val_size > 0:
            raise ValueError("val_file and val_size both choose the validation rows: give one")
        if self.val_size >= 1 and self.val_size != int(self.val_size):
            raise ValueError("val_size is a share below 1 or a whole number of rows")
        if self.task_weights and self.task_column is None:
            raise ValueError("task_weights needs task_column, the column that names the task")
        if any(weight < 0 for weight in (self.task_weights or {}).values()):
            raise ValueError("task_weights can't be negative")
        return self
