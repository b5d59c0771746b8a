"""rollouts.jsonl: some of the answers that a model drew in training, with their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from luthier.core.files import append_jsonl, read_jsonl
from luthier.rollouts.draw import Sample

ROLLOUTS = "rollouts.jsonl"
PROMPTS_PER_DRAW = 2


class RolloutFile:
    """Writes the first answers of each draw.

    A draw is told from others by its seed. One that comes again, because the run goes on from
    before it, has the same answers, which stand in the file already.
    """

    def __init__(self, path: Path) -> None:
        """Look for what was written before; a last line that a killed run left torn counts not."""
        self._path = path
        self._seeds: set[int] = {line["seed"] for line in read_jsonl(path)}

    def __call__(self, seed: int, samples: Sequence[Sample]) -> None:
        """Write some of the answers of one draw."""
        if seed in self._seeds:
            return
        self._seeds.add(seed)
        for sample in samples[:PROMPTS_PER_DRAW]:
            append_jsonl(self._path, {"seed": seed, **sample})
