"""Sources through the steps: what `luthier prepare` does, and training does on the way.

Comes in: sources and planned steps. Goes out: a folder of the rows that are left, and an account in
which every row that was read is either there or dropped with a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.corpus.parts import read_part
from luthier.corpus.pipeline import PlannedStep, Report, StepOutcome, dropped_paths, run_steps
from luthier.corpus.read import read_batches
from luthier.corpus.readers.source import Source
from luthier.corpus.runners import Runner
from luthier.corpus.settings import CorpusSettings


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The outcome of all steps.

    Attributes:
        outcomes: One for reading and one for each step; the last holds the rows that are left.
    """

    outcomes: tuple[StepOutcome, ...]

    @property
    def folder(self) -> Path:
        """Where the rows that are left lie."""
        return self.outcomes[-1].folder

    @property
    def rows_read(self) -> int:
        """Rows of all sources, unusable ones included."""
        return self.outcomes[0].account.rows_in

    @property
    def rows_left(self) -> int:
        """Rows that passed every step."""
        return self.outcomes[-1].account.rows_out

    def sketches(self) -> dict[str, dict[str, Any]]:
        """Return the sketches that were kept and still hold, by name, and by the id of the row.

        None are there of a step that an earlier run has done, or behind which rows were changed.
        """
        found: dict[str, dict[str, Any]] = {}
        for outcome in self.outcomes:
            if outcome.account.changed:
                found = {}
            found |= outcome.sketches
        return found

    def num_dropped(self) -> dict[str, int]:
        """Return how many rows left for each reason, most frequent first."""
        total: Counter[str] = Counter()
        for outcome in self.outcomes:
            total.update(outcome.account.dropped)
        return dict(total.most_common())

    def dropped_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the dropped rows, step by step, each with `step`, `reason` and its columns."""
        for outcome in self.outcomes:
            for path in dropped_paths(outcome.folder):
                columns = read_part(path)
                for values in zip(*columns.values(), strict=True):
                    row = dict(zip(columns, values, strict=True))
                    yield {"step": outcome.account.name, **row}


def clean(
    sources: Sequence[Source],
    inputs_key: str,
    settings: CorpusSettings,
    steps: Sequence[PlannedStep],
    root: Path,
    *,
    seed: int = 0,
    runner: Runner | None = None,
    report: Report | None = None,
    keep_sketches: Sequence[str] = (),
) -> Cleaned:
    """Read the sources and run the steps over their rows.

    Args:
        sources: Where the rows come from. Their order does not matter: they are read by name.
        inputs_key: Hash of the sources' content and of the settings that reading depends on.
        settings: What becomes of a row that can't be used.
        steps: In order.
        root: Folder that keeps results.
        seed: Draws the rows of sources with `num_samples`.
        runner: Who works on the batches; None does it here, one after the other.
        report: Told how far each step is.
        keep_sketches: Names of sketches that `Cleaned.sketches` is to return.

    Raises:
        DataError: A source can't be read; see `read_batches`.
        OSError: The disk is full; finished steps are kept.
    """
    outcomes = run_steps(
        lambda: read_batches(sources, settings, seed=seed),
        inputs_key,
        steps,
        root,
        runner=runner,
        report=report,
        keep_sketches=keep_sketches,
    )
    return Cleaned(tuple(outcomes))
