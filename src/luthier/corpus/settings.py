"""Settings of the corpus: which sources, which rows, which split, and which steps between them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from luthier.contracts.settings import Settings

DeclaredFormat = Literal["auto", "alpaca", "sharegpt", "messages", "text", "record"]

ColumnWord = Literal[
    "prompt",
    "query",
    "response",
    "system",
    "history",
    "messages",
    "chosen",
    "rejected",
    "kto_tag",
    "tools",
    "text",
    "category",
]
"""What fields of a row can be declared to be: the words of dataset_info.json, and two more."""

TagWord = Literal[
    "role_tag",
    "content_tag",
    "user_tag",
    "assistant_tag",
    "system_tag",
    "observation_tag",
    "function_tag",
]
"""What keys and speakers of turns can be declared to be, in the words of dataset_info.json."""


_TEXT_WORDS: frozenset[str] = frozenset({"text", "category"})
_BOTH: frozenset[str] = frozenset({"system", "tools", "chosen", "rejected", "kto_tag", "category"})
_TURN_WORDS: frozenset[str] = _BOTH | {"messages"}
_FLAT_WORDS: frozenset[str] = _BOTH | {"prompt", "query", "response", "history"}


class SourceSettings(Settings):
    """One source of rows, and what is to be known of them."""

    path: str
    """A file, a folder, a pattern, a prepared corpus, or the name of a data set on the hub."""

    name: str | None = None
    """What the source is called in ids and accounts. Without it: the end of each file's path."""

    format: DeclaredFormat = "auto"
    """How rows are laid out; `auto` looks at the fields of each row."""

    columns: dict[ColumnWord, str] = Field(default_factory=dict)
    """Names of fields in the rows, such as {prompt: question, response: reply}."""

    tags: dict[TagWord, str] = Field(default_factory=dict)
    """Names of keys and speakers within turns, such as {role_tag: who, user_tag: customer}."""

    weight: float | None = Field(default=None, gt=0)
    """Share of the source in the mixture that the step `sample` makes."""

    num_samples: int | None = Field(default=None, gt=0)
    """Use this many of the source's rows, drawn by seed."""

    category: str | None = None
    """Category of all rows of the source."""

    split: str | None = None
    """Split of a hub data set; without it `train`."""

    subset: str | None = None
    """Configuration of a hub data set."""

    folder: str | None = None
    """Folder within a hub data set."""

    @model_validator(mode="after")
    def _check(self) -> SourceSettings:
        if self.category is not None and "category" in self.columns:
            raise ValueError("category and columns.category both give the category: give one")
        if self.format == "record" and (self.columns or self.tags):
            raise ValueError("format record has its own columns: leave columns and tags out")
        if self.tags and self.format not in ("messages", "sharegpt"):
            raise ValueError("tags name parts of turns: they need format: messages or sharegpt")
        if unused := sorted(self.columns.keys() - self._words()):
            raise ValueError(f"columns: rows of this format have no {', '.join(unused)}")
        return self

    def _words(self) -> frozenset[str]:
        """Return the words that rows of this format have a part for."""
        if self.format == "text" or (self.format == "auto" and "text" in self.columns):
            return _TEXT_WORDS
        has_turns = self.format == "auto" and "messages" in self.columns
        if has_turns or self.format in ("messages", "sharegpt"):
            return _TURN_WORDS
        return _FLAT_WORDS


class CorpusSettings(Settings):
    """Where the rows come from and which of them are kept."""

    train_file: str | list[str] | None = None
    """Training data: a json, jsonl, csv or parquet file, a folder of these, or a hub name. With
    stage: pt rows have a field text, and a txt file will do: each of its lines is a document."""

    val_file: str | list[str] | None = None
    """Validation data, in the same forms. Without it, `val_size` cuts it from the training rows."""

    dataset: str | list[str] | None = None
    """Names of entries of dataset_info.json in `dataset_dir` (as in LLaMA-Factory)."""

    dataset_dir: str = "data"
    """Folder that holds dataset_info.json and the files that it names."""

    sources: list[SourceSettings] | None = None
    """Training data, source by source, each with its own format, weight and category."""

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
        if self.sources is not None and not (self.train_file is self.dataset is None):
            raise ValueError("sources takes the place of train_file and dataset: give one")
        if self.val_file is not None and self.val_size > 0:
            raise ValueError("val_file and val_size both choose the validation rows: give one")
        if self.val_size >= 1 and self.val_size != int(self.val_size):
            raise ValueError("val_size is a share below 1 or a whole number of rows")
        if self.task_weights and self.task_column is None:
            raise ValueError("task_weights needs task_column, the column that names the task")
        if any(weight < 0 for weight in (self.task_weights or {}).values()):
            raise ValueError("task_weights can't be negative")
        return self


class PreparationSettings(Settings):
    """What is done with the rows before training, and where a prepared corpus lies."""

    steps: list[str] = Field(default_factory=list)
    """Corpus steps, in order: repair, schema, exact, near, ... and your own."""

    step_file: str | None = None
    """Python file with your own steps."""

    step_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of your own steps, by their name."""

    corpus_dir: str = "prepared"
    """Folder that `luthier prepare` writes."""
