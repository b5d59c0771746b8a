"""Settings of the dataset: template, mask, length, and where prepared data is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from luthier.contracts.settings import Settings


class DatasetSettings(Settings):
    """How conversations become token ids and labels."""

    template: str = "auto"
    """Chat template: `auto` (the model's own), a built-in name, or a path to a .jinja file."""

    default_system: str | None = None
    """System prompt for conversations that have none."""

    cutoff_len: int = Field(default=2048, ge=8)
    """Longest row, in tokens. With stage: pt a longer document goes on in the next row."""

    on_long_row: Literal["cut", "drop"] = "cut"
    """A row over `cutoff_len` is cut inside its messages, turn structure kept, or dropped."""

    min_answer_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of a cut row's room that answers get before prompts, if they need it."""

    train_on_prompt: bool = False
    """Teach the prompt too: every token but the first carries loss."""

    mask_history: bool = False
    """Teach only the last answer of a conversation."""

    prepared_dir: str | None = None
    """Folder that keeps prepared data. Default: `prepared` in luthier's cache folder."""

    overwrite_cache: bool = False
    """Prepare the data again even if the same inputs were prepared before."""

    preprocessing_num_workers: int | None = Field(default=None, gt=0)
    """Threads of the tokenizer, and processes that clean a corpus. Default: all cores."""

    @model_validator(mode="after")
    def _check(self) -> DatasetSettings:
        if self.train_on_prompt and self.mask_history:
            raise ValueError("train_on_prompt and mask_history contradict each other: give one")
        return self
