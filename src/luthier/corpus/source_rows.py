"""The rows of one source as records, each kept or left out with a reason.

In: a source, and what makes a record of a row. Out: row by row what became of it, so that a corpus
of any size passes through. Damage to the source as a whole, and a source of something else, end it
whatever becomes of bad rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from luthier.contracts.conversation import Conversation, Origin, Record, Rejection
from luthier.core.errors import DataError, did_you_mean
from luthier.corpus.bad_rows import MENDS, RowError, raise_rejection
from luthier.corpus.filters import why_dropped
from luthier.corpus.layouts import Layout, Row
from luthier.corpus.readers.dispatch import read_source
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.unify import RowColumns
from luthier.corpus.unused_fields import UnusedFields

FIRST_ROWS = 10
"""Where none of this many rows at the head of a source is of a known format, none will be."""

MAX_UNREAD = 100_000
"""Where so many rows one after another can't be read, the file is of another kind. They would have
to be held in memory until the next row that can."""

_MAX_NAMES = 1_000
"""So many names of fields are kept, to offer the nearest."""

T = TypeVar("T", Record, Conversation)
T_co = TypeVar("T_co", bound=Record | Conversation, covariant=True)


class Convert(Protocol[T_co]):
    """What makes a record of a row."""

    def __call__(self, row: Row, origin: Origin, *, layout: Layout, columns: RowColumns) -> T_co:
        """Return the record; raise `RowError` where the row can't be used."""
        ...


@dataclass(frozen=True, slots=True)
class SourceRow(Generic[T]):
    """What became of one row.

    Attributes:
        origin: Where it stands in the source.
        record: What it says; None where it could not be read.
        format: What its format is called.
        rejection: Why it is left out; None where it is kept.
        unused: Names of its filled fields that nothing was read from.
    """

    origin: Origin
    record: T | None
    format: str | None
    rejection: Rejection | None
    unused: tuple[str, ...] = ()


class DeclaredFields:
    """Finds names of fields that are declared, and that no row has.

    Args:
        columns: The names, by the words of dataset_info.json.
        label: What messages call the source that they are declared for.
    """

    def __init__(self, columns: Mapping[str, str], label: str) -> None:
        self._label = label
        self._unseen = dict(columns)
        self._seen: dict[str, None] = {}

    def note(self, row: Row) -> None:
        """Look at the fields of one row."""
        if not self._unseen:
            return
        if len(self._seen) < _MAX_NAMES:
            self._seen.update(dict.fromkeys(row))
        self._unseen = {word: name for word, name in self._unseen.items() if name not in row}

    def explain(self, error: RowError, origin: Origin) -> None:
        """Say of a row that lacks a field that it was declared, if no row so far has had it.

        Raises:
            DataError: So it is.
        """
        for word, name in self._unseen.items():
            if error.detail.startswith(f"the field {name} is missing"):
                raise self._error(word, name, "the row has no such field", str(origin))

    def end(self) -> None:
        """Refuse fields that no row had.

        Raises:
            DataError: There is one.
        """
        for word, name in self._unseen.items():
            raise self._error(word, name, "no row has such a field", self._label)

    def _error(self, word: str, name: str, but: str, where: str) -> DataError:
        return DataError(
            f"columns: {word} is declared as {name!r}, and {but}",
            where=where,
            mend=did_you_mean(name, self._seen),
        )


def source_rows(
    source: Source,
    settings: CorpusSettings,
    find: Callable[[Row], Layout],
    convert: Convert[T],
    *,
    fields: DeclaredFields | None = None,
) -> Iterator[SourceRow[T]]:
    """Yield what became of each row of a source, in their order.

    Args:
        source: Where the rows come from.
        settings: What is kept, and what becomes of a row that can't be used.
        find: Tells the layout of a row.
        convert: Makes a record of it.
        fields: Is shown each row.

    Raises:
        DataError: The source is damaged as a whole or of no known format, a row can't be used and
            `on_bad_row` is error, or more than `MAX_UNREAD` rows in a row can't be read.
    """
    is_strict = settings.on_bad_row == "error"
    columns = RowColumns.of(settings, source)
    unread: list[Rejection] = []
    unused = UnusedFields(columns)
    unknown = _UnknownRows(give_up_after=1 if is_strict else FIRST_ROWS)

    def keep(rejection: Rejection) -> None:
        unread.append(rejection)
        if len(unread) > MAX_UNREAD:
            raise _too_many_unread(unread)

    for origin, row in read_source(source, raise_rejection if is_strict else keep):
        yield from _drained(unread)
        if fields is not None:
            fields.note(row)
        try:
            layout = find(row)
            record = convert(row, origin, layout=layout, columns=columns)
        except RowError as error:
            if is_strict and fields is not None:
                fields.explain(error, origin)
            unknown.note(error, origin)
            rejection = error.rejection(origin, row)
            if is_strict:
                raise_rejection(rejection)
            yield SourceRow(origin, None, None, rejection)
            continue
        unknown.is_settled = True
        rejection = _filtered(record, settings, origin, row)
        yield SourceRow(origin, record, layout.name, rejection, unused.of(row, layout))
    yield from _drained(unread)
    unknown.end()


def too_few(source: Source, num_usable: int) -> DataError:
    """Build the error for a source with fewer rows than are to be drawn of it."""
    return DataError(
        f"num_samples is {source.num_samples}, and there are {num_usable} usable rows",
        where=source.label,
        mend="Lower num_samples, or remove it to use all rows.",
    )


def not_sampled(source: Source, origin: Origin) -> Rejection:
    """Return the account of a row that `num_samples` left out."""
    return Rejection(origin, "not_sampled", f"num_samples is {source.num_samples}")


def _too_many_unread(unread: list[Rejection]) -> DataError:
    first = unread[0]
    return DataError(
        f"{len(unread):,} rows one after another can't be read; the first one: {first.detail}",
        where=str(first.origin),
        mend=f"{MENDS[first.reason]}; or name the file by what it holds.",
    )


def _filtered(
    record: Record | Conversation, settings: CorpusSettings, origin: Origin, row: Row
) -> Rejection | None:
    dropped = why_dropped(record, settings)
    return None if dropped is None else RowError(*dropped).rejection(origin, row)


def _drained(rejections: list[Rejection]) -> Iterator[SourceRow[T]]:
    """Yield the rows that a reader could not deliver, and forget them."""
    for rejection in rejections:
        yield SourceRow(rejection.origin, None, None, rejection)
    rejections.clear()


class _UnknownRows:
    """Tells a file of something else, which is no matter of `on_bad_row`, from a bad row."""

    def __init__(self, give_up_after: int) -> None:
        self.is_settled = False
        self._give_up_after = give_up_after
        self._num_seen = 0
        self._first: DataError | None = None

    def note(self, error: RowError, origin: Origin) -> None:
        """Count a row that can't be used; raise where all rows so far are of no known format."""
        self.is_settled = self.is_settled or error.reason != "unknown_format"
        if self.is_settled:
            return
        self._num_seen += 1
        self._first = self._first or error.data_error(origin)
        if self._num_seen >= self._give_up_after:
            raise self._first

    def end(self) -> None:
        """Raise where the source ended and none of its rows was of a known format."""
        if self._first is not None and not self.is_settled:
            raise self._first
