"""Settings of the checkpoints."""

from __future__ import annotations

from pydantic import Field

from luthier.contracts.settings import Settings


class CheckpointSettings(Settings):
    """Which checkpoints are kept, and where a run goes on from."""

    save_total_limit: int | None = Field(default=None, gt=0)
    """Checkpoints kept. The best and the newest are never removed."""

    resume_from_checkpoint: bool | str = False
    """Go on from the newest good checkpoint of `output_dir` (bare flag), or from a path."""

    overwrite_output_dir: bool = False
    """Remove an earlier run from `output_dir` first."""
