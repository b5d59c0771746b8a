"""The checkpoints of a run as `luthier checkpoints` shows them: verified, with what resumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.checkpoints.listing import FOLDER, FoundCheckpoint, inspect_checkpoints
from luthier.core.errors import RunError
from luthier.recipes.run_folder import RUN_YAML


@dataclass(frozen=True, slots=True)
class CheckpointList:
    """All checkpoints of a run, oldest first.

    Attributes:
        run: The run's folder.
        latest: The newest that verifies: what a bare `--resume_from_checkpoint` goes on from.
        best: The one with the lowest validation loss that verifies.
    """

    run: Path
    found: tuple[FoundCheckpoint, ...]
    latest: FoundCheckpoint | None
    best: FoundCheckpoint | None

    def marks(self, checkpoint: FoundCheckpoint) -> list[str]:
        """Return `latest` and `best` where they fit."""
        marked = {"latest": self.latest, "best": self.best}
        return [mark for mark, holder in marked.items() if holder is checkpoint]

    def damaged(self) -> list[FoundCheckpoint]:
        """Return those that do not verify."""
        return [checkpoint for checkpoint in self.found if checkpoint.problem is not None]

    def as_json(self) -> dict[str, Any]:
        """Return the list as plain JSON."""
        return {
            "run": str(self.run),
            "latest": self.latest.path.name if self.latest else None,
            "best": self.best.path.name if self.best else None,
            "checkpoints": [
                {
                    "name": checkpoint.path.name,
                    "step": checkpoint.step,
                    "part": checkpoint.part,
                    "written": checkpoint.written,
                    "bytes": checkpoint.num_bytes,
                    "eval_loss": checkpoint.eval_loss,
                    "problem": checkpoint.problem,
                    "unknown_files": list(checkpoint.unknown_files),
                }
                for checkpoint in self.found
            ],
        }


def checkpoint_list(run: Path) -> CheckpointList:
    """Verify all checkpoints of a run.

    Args:
        run: A run's output folder.

    Raises:
        RunError: It is none.
    """
    if not (run / RUN_YAML).is_file() and not (run / FOLDER).is_dir():
        raise RunError(
            "there is no run here",
            where=str(run),
            mend="Name the output_dir of a run; its checkpoints lie below it.",
        )
    found = tuple(inspect_checkpoints(run))
    good = [checkpoint for checkpoint in found if checkpoint.problem is None]
    evaluated = [(c.eval_loss, c.step, c) for c in good if c.eval_loss is not None]
    best = min(evaluated, key=lambda entry: entry[:2])[2] if evaluated else None
    return CheckpointList(run, found, good[-1] if good else None, best)
