"""Sources through the steps: what `luthier prepare` does, and training does on the way.

Comes in: sources and planned steps. Goes out: a folder of the rows that are left, and an account in
which every row that was read is either there or dropped with a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.contracts.conversation import Corpus, Rejection
from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus.load import load_corpus
from luthier.corpus.pipeline import DROPPED, PlannedStep, Report, StepOutcome, run_steps
from luthier.corpus.readers.source import Source
from luthier.corpus.record import columns_of, conversations_of, num_rows, read_parts
from luthier.corpus.settings import CorpusSettings

BATCH_ROWS = 4096
"""Rows of one part."""


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

    def num_dropped(self) -> dict[str, int]:
        """Return how many rows left for each reason, most frequent first."""
        total: Counter[str] = Counter()
        for outcome in self.outcomes:
            total.update(outcome.account.dropped)
        return dict(total.most_common())

    def dropped_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the dropped rows, step by step, each with `step`, `reason` and its columns."""
        import pyarrow.parquet as pq

        for outcome in self.outcomes:
            path = outcome.folder / DROPPED
            if path.is_file():
                for row in pq.read_table(path).to_pylist():
                    yield {"step": outcome.account.name, **row}


def clean(
    sources: Sequence[Source],
    inputs_key: str,
    settings: CorpusSettings,
    steps: Sequence[PlannedStep],
    root: Path,
    *,
    seed: int = 0,
    num_workers: int = 1,
    report: Report | None = None,
) -> Cleaned:
    """Read the sources and run the steps over their rows.

    Args:
        sources: Where the rows come from. Their order does not matter: they are read by name.
        inputs_key: Hash of the sources' content and of the settings that reading depends on.
        settings: What becomes of a row that can't be used.
        steps: In order.
        root: Folder that keeps results.
        seed: Draws the rows of sources with `num_samples`.
        num_workers: Processes for steps that look at each row alone.
        report: Told how far each step is.

    Raises:
        DataError: A source can't be read; see `load_corpus`.
        OSError: The disk is full; finished steps are kept.
    """
    by_name = sorted(sources, key=lambda source: source.name)
    outcomes = run_steps(
        lambda: _batches(by_name, settings, seed),
        inputs_key,
        steps,
        root,
        num_workers=num_workers,
        report=report,
    )
    return Cleaned(tuple(outcomes))


def corpus_of(cleaned: Cleaned) -> Corpus:
    """Return what is left as the corpus that training prepares, with a rejection for each drop."""
    corpus = Corpus(num_rows_read=cleaned.rows_read)
    for part in read_parts(cleaned.folder):
        corpus.conversations += conversations_of(part)
    for row in cleaned.dropped_rows():
        origin = conversations_of({name: [value] for name, value in row.items()})[0].origin
        content = row["text"] or " ".join(turn["content"] for turn in row["messages"])
        corpus.rejections.append(Rejection(origin, row["reason"], row["detail"], content[:2000]))
    return corpus


def _batches(
    sources: Iterable[Source], settings: CorpusSettings, seed: int
) -> Iterator[tuple[StepResult, Columns]]:
    for source in sources:
        corpus = load_corpus([source], settings, seed=seed)
        rows = corpus.conversations
        for start in range(0, len(rows), BATCH_ROWS):
            columns = columns_of(rows[start : start + BATCH_ROWS], source.name)
            yield StepResult(columns), columns
        if corpus.rejections:
            yield _rejected(corpus.rejections, source.name)


def _rejected(rejections: Sequence[Rejection], source: str) -> tuple[StepResult, Columns]:
    """Put the rows that reading left out into the account, as far as they could be read."""
    columns = columns_of([], source)
    rows: Columns = {name: [None] * len(rejections) for name in columns}
    rows |= {
        "id": [f"{source}#{rejection.origin.row}" for rejection in rejections],
        "source": [source] * len(rejections),
        "origin": [str(rejection.origin) for rejection in rejections],
        "messages": [[] for _ in rejections],
        "text": [rejection.content for rejection in rejections],
        "weight": [1.0] * len(rejections),
    }
    drops = [
        Drop(id_, rejection.reason, rejection.detail)
        for id_, rejection in zip(rows["id"], rejections, strict=True)
    ]
    assert num_rows(rows) == len(drops)
    return StepResult(columns, drops), rows
