"""Settings of the checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from luthier.contracts.settings import Settings


class CheckpointSettings(Settings):
    """Which checkpoints are kept, and where a run goes on from."""

    save_total_limit: int | None = Field(default=None, gt=0)
    """Checkpoints kept. The best and the newest are never removed."""

    save_in_background: bool = False
    """Copy what a checkpoint holds, and write it while training goes on; takes memory for the copy:
    the trained weights and twice as much for AdamW's state."""

    on_full_disk: Literal["stop", "pause"] = "stop"
    """Where a checkpoint finds no room on the disk: end the run, or keep it in memory and try again
    every few seconds until there is room."""

    resume_from_checkpoint: bool | str = False
    """Go on from the newest good checkpoint of `output_dir` (bare flag), or from a path."""

    allow_change: str | list[str] | None = None
    """With resume_from_checkpoint: settings that may differ from the checkpoint's, by name. Rows of
    the epoch that were trained on already are not trained on again."""

    overwrite_output_dir: bool = False
    """Remove an earlier run from `output_dir` first."""

    @property
    def changes(self) -> list[str]:
        """The names in `allow_change`."""
        given = self.allow_change or []
        return [name.strip() for name in given.split(",")] if isinstance(given, str) else given

    @field_validator("resume_from_checkpoint", mode="before")
    @classmethod
    def _null_is_no(cls, value: object) -> object:
        # LLaMA-Factory's examples carry `resume_from_checkpoint: null`.
        return False if value is None else value
