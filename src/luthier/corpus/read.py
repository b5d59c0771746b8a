"""Sources in, batches of columns out: rows of every kind, as many in memory as a batch has.

In: sources. Out: what the first step gets: the rows that are kept, and those that are not with the
reason. A source of which some rows are drawn is read twice: first for their hashes, then for them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from luthier.contracts.conversation import Record, Rejection
from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.core.errors import DataError
from luthier.core.hashing import keyed_fraction
from luthier.corpus.bad_rows import MENDS
from luthier.corpus.formats import layout_finder
from luthier.corpus.readers.source import Source
from luthier.corpus.record import columns_of, select
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.source_rows import (
    DeclaredFields,
    SourceRow,
    not_sampled,
    source_rows,
    too_few,
)
from luthier.corpus.unify import record_from_row

BATCH_ROWS = 1000
"""Rows of one batch, those that are left out included."""

BATCH_CHARS = 32 << 20
"""Characters after which a batch ends, though it has fewer rows: rows may have 30 MB each."""


def read_batches(
    sources: Sequence[Source],
    settings: CorpusSettings,
    *,
    seed: int,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[tuple[StepResult, Columns]]:
    """Yield the rows of the sources in batches, by the names of the sources, whatever their kind.

    Args:
        sources: Where the rows come from. Their order does not matter.
        settings: What is kept, and what becomes of a row that can't be used.
        seed: Draws the rows of sources with `num_samples`.
        batch_rows: Rows of a batch, those that are left out included.

    Returns:
        Each batch as it is kept, with a drop for each row that is not, and as it came. A row that
        could not be read has its content under `text`. Counts say how many rows of a
        source are of a format (`format_alpaca@rows.jsonl`), and how many have a field that nothing
        is read from (`unused_id@rows.jsonl`).

    Raises:
        DataError: A source is damaged as a whole or of no known format, a row can't be used and
            `on_bad_row` is error, a declared field is in no row, or no row is left.
    """
    batch, account = _Batch(), _Account()
    for source, row in _all_rows(sources, settings, seed):
        account.note(row)
        batch.add(source, row)
        if len(batch.ids) == batch_rows or batch.num_chars >= BATCH_CHARS:
            yield batch.part()
            batch = _Batch()
    if batch.ids:
        yield batch.part()
    account.end(sources)


def nothing_left(names: Sequence[str], dropped: Counter[str], first: Rejection) -> DataError:
    """Build the error for sources of which no row can be used.

    Args:
        names: The sources.
        dropped: How many rows left for each reason.
        first: The first of them.
    """
    ordered = dropped.most_common()
    listed = ", ".join(f"{count} {reason}" for reason, count in ordered)
    return DataError(
        f"none of the {dropped.total()} rows can be trained on: {listed}",
        where=", ".join(names),
        mend=f"{MENDS[ordered[0][0]]}. The first one, {first.origin}: {first.detail}.",
    )


@dataclass(slots=True)
class _Account:
    """How many rows were read, and why some are left out."""

    num_read: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    first: Rejection | None = None

    def note(self, row: SourceRow[Record]) -> None:
        self.num_read += 1
        if row.rejection is not None:
            self.dropped[row.rejection.reason] += 1
            self.first = self.first or row.rejection

    def end(self, sources: Sequence[Source]) -> None:
        """Raise where no row is left."""
        if self.first is not None and self.num_read == self.dropped.total():
            raise nothing_left([source.label for source in sources], self.dropped, self.first)


@dataclass(slots=True)
class _Batch:
    """Rows that wait to be handed on."""

    records: list[Record] = field(default_factory=list[Record])
    ids: list[str] = field(default_factory=list[str])
    names: list[str] = field(default_factory=list[str])
    keep: list[bool] = field(default_factory=list[bool])
    drops: list[Drop] = field(default_factory=list[Drop])
    counts: Counter[str] = field(default_factory=Counter[str])
    num_chars: int = 0

    def add(self, source: Source, row: SourceRow[Record]) -> None:
        """Take a row, kept or not."""
        rejection, id_ = row.rejection, f"{source.key}#{row.origin.row}"
        content = "" if rejection is None else rejection.content
        record = row.record or Record(row.origin, text=content)
        self.records.append(record)
        self.num_chars += _num_chars(record)
        self.ids.append(id_)
        self.names.append(source.name)
        self.keep.append(rejection is None)
        if rejection is not None:
            self.drops.append(Drop(id_, rejection.reason, rejection.detail))
        elif row.record is not None:
            self.counts[f"format_{row.format}{_kind(row.record)}@{source.name}"] += 1
            self.counts.update(f"unused_{name}@{source.name}" for name in row.unused)

    def part(self) -> tuple[StepResult, Columns]:
        """Return the batch as it is kept, and as it came."""
        came = columns_of(self.records, self.names, self.ids)
        kept = select(came, self.keep) if self.drops else came
        return StepResult(kept, self.drops, self.counts), came


def _num_chars(record: Record) -> int:
    turns = (*record.messages, *(record.chosen or ()), *(record.rejected or ()))
    return len(record.text or "") + sum(len(turn.content) for turn in turns)


def _kind(record: Record) -> str:
    if record.chosen is not None:
        return "_preference"
    return "" if record.label is None else "_kto"


def _all_rows(
    sources: Sequence[Source], settings: CorpusSettings, seed: int
) -> Iterator[tuple[Source, SourceRow[Record]]]:
    """Yield the rows of all sources, by the names of the sources.

    Raises:
        DataError: A field is declared that no row has.
    """
    declared: dict[tuple[tuple[str, str], ...], DeclaredFields] = {}
    for source in sorted(sources, key=lambda source: source.key):
        # The files of one folder share what is declared: one of them may lack a field.
        key = tuple(sorted(source.columns.items()))
        fields = declared.setdefault(key, DeclaredFields(source.columns, source.label))
        for row in _drawn_rows(_Reading(source, settings, fields), seed):
            yield source, row
    for fields in declared.values():
        fields.end()


@dataclass(frozen=True, slots=True)
class _Reading:
    """A source that is read, once or twice."""

    source: Source
    settings: CorpusSettings
    fields: DeclaredFields

    def rows(self) -> Iterator[SourceRow[Record]]:
        """Yield the rows from the first on."""
        find = layout_finder(self.source, any_kind=True)
        return source_rows(self.source, self.settings, find, record_from_row, fields=self.fields)


def _drawn_rows(reading: _Reading, seed: int) -> Iterator[SourceRow[Record]]:
    """Yield the rows of a source; where some are drawn, the others with that as their reason."""
    if reading.source.num_samples is None:
        yield from reading.rows()
        return
    drawn = _draw(reading, reading.source.num_samples, seed)
    for row in reading.rows():
        if row.rejection is None and row.origin.row not in drawn:
            yield replace(row, rejection=not_sampled(reading.source, row.origin))
        else:
            yield row


def _draw(reading: _Reading, num_samples: int, seed: int) -> set[int]:
    """Return the numbers of the rows with the least hashes: those that `sample_rows` draws.

    Raises:
        DataError: There are fewer rows than are to be drawn.
    """
    num_usable = 0

    def places() -> Iterator[tuple[float, int]]:
        nonlocal num_usable
        for row in reading.rows():
            if row.rejection is None and row.record is not None:
                num_usable += 1
                yield keyed_fraction(row.record.key(), seed), row.origin.row

    least = heapq.nsmallest(num_samples, places())
    if num_usable < num_samples:
        raise too_few(reading.source, num_usable)
    return {number for _, number in least}
