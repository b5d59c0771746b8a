"""Settings of the checkpoints."""

from __future__ import annotations

from pydantic import Field, field_validator

from luthier.contracts.settings import Settings


class CheckpointSettings(Settings):
    """Which checkpoints are kept, and where a run goes on from."""

    save_total_limit: int | None = Field(default=None, gt=0)
    """Checkpoints kept. The best and the newest are never removed."""

    resume_from_checkpoint: bool | str = False
    """Go on from the newest good checkpoint of `output_dir` (bare flag), or from a path."""

    overwrite_output_dir: bool = False
    """Remove an earlier run from `output_dir` first."""

    @field_validator("resume_from_checkpoint", mode="before")
    @classmethod
    def _null_is_no(cls, value: object) -> object:
        # LLaMA-Factory's examples carry `resume_from_checkpoint: null`.
        return False if value is None else value
