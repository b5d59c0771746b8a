"""Sources in, a corpus out: read, unify, filter, with a reason for each row that left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from luthier.contracts.conversation import Corpus, Message, Origin, Rejection
from luthier.core.errors import DataError, SettingsError, did_you_mean
from luthier.core.files import write_text
from luthier.corpus.bad_rows import MENDS, RowError, raise_rejection, raise_unskippable
from luthier.corpus.filters import why_dropped
from luthier.corpus.layouts import declared_layout, find_layout
from luthier.corpus.readers.dispatch import read_rows, read_source
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.split import sample_rows
from luthier.corpus.unify import RowColumns, conversation_from_row, prompt_from_row

FIRST_ROWS = 10
"""Where none of this many rows at the head of a source is of a known format, none will be."""


def load_corpus(sources: Iterable[Source], settings: CorpusSettings, *, seed: int = 0) -> Corpus:
    """Read all rows of the sources into conversations, in the order of sources and rows.

    Args:
        sources: Where the rows come from.
        settings: What is kept, and what becomes of a row that can't be used.
        seed: Draws the rows of sources with `num_samples`.

    Returns:
        At least one conversation, and a rejection for each row that did not become one.

    Raises:
        DataError: A source is damaged as a whole or of no known format, a row can't be used and
            `on_bad_row` is error, or no row is left.
    """
    corpus = Corpus()
    names: list[str] = []
    for source in sources:
        names.append(source.name)
        _load_source(source, settings, seed, corpus)
    corpus.num_rows_read = len(corpus.conversations) + len(corpus.rejections)
    if not corpus.conversations:
        raise _nothing_left(names, corpus)
    return corpus


def load_prompts(path: Path) -> list[tuple[Origin, tuple[Message, ...]]]:
    """Read the prompts of a file for generation; see `prompt_from_row` for what a row may be.

    Args:
        path: A file of any kind that training data may have.

    Raises:
        DataError: The file can't be read, or a row holds no prompt.
    """
    prompts: list[tuple[Origin, tuple[Message, ...]]] = []
    for origin, row in read_rows(path, raise_unskippable):
        try:
            prompts.append((origin, prompt_from_row(row)))
        except RowError as error:
            raise error.data_error(origin) from error
    return prompts


def check_tasks(corpus: Corpus, settings: CorpusSettings) -> None:
    """Refuse task settings that the training rows give nothing to: they would do nothing.

    Raises:
        SettingsError: No row has the task column, or a weight names a task that no row has.
    """
    if settings.task_column is None:
        return
    tasks = {row.task for row in corpus.conversations if row.task is not None}
    if not tasks:
        raise SettingsError(
            f"task_column: no row has a field {settings.task_column}",
            mend="Name the field of the rows that holds the task, or leave task_column out.",
        )
    for name in settings.task_weights or {}:
        if name not in tasks:
            raise SettingsError(
                f"task_weights: no row has the task {name!r}", mend=did_you_mean(name, tasks)
            )


def write_rejected(path: Path, rejections: Sequence[Rejection]) -> None:
    """Write the rows that left, one JSON object a line, the file whole or not at all.

    Args:
        path: The file to write.
        rejections: What to write of; with none, the file is empty.
    """
    lines = [
        json.dumps(
            {
                "file": rejection.origin.file,
                "line": rejection.origin.line,
                "row": rejection.origin.row,
                "reason": rejection.reason,
                "detail": rejection.detail,
                "content": rejection.content,
            },
            ensure_ascii=False,
        )
        for rejection in rejections
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _load_source(source: Source, settings: CorpusSettings, seed: int, corpus: Corpus) -> None:
    layout = declared_layout(source)
    columns = RowColumns.of(settings)
    is_strict = settings.on_bad_row == "error"
    on_bad_row = raise_rejection if is_strict else corpus.rejections.append
    first = len(corpus.conversations)
    unknown = _UnknownRows(give_up_after=1 if is_strict else FIRST_ROWS)
    for origin, row in read_source(source, on_bad_row):
        try:
            found = layout or find_layout(row)
            conversation = conversation_from_row(row, origin, layout=found, columns=columns)
        except RowError as error:
            unknown.note(error, origin)
            on_bad_row(error.rejection(origin, row))
            continue
        unknown.is_settled = True
        dropped = why_dropped(conversation, settings)
        if dropped is not None:
            corpus.rejections.append(RowError(*dropped).rejection(origin, row))
            continue
        corpus.formats[found.name] += 1
        corpus.conversations.append(conversation)
    unknown.end()
    _draw(source, seed, corpus, first)


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


def _draw(source: Source, seed: int, corpus: Corpus, first: int) -> None:
    """Keep `num_samples` of a source's conversations, which stand from `first` on."""
    if source.num_samples is None:
        return
    found = corpus.conversations[first:]
    if len(found) < source.num_samples:
        raise DataError(
            f"num_samples is {source.num_samples}, and there are {len(found)} usable rows",
            where=source.name,
            mend="Lower num_samples in dataset_info.json, or remove it to use all rows.",
        )
    drawn = sample_rows([row.key() for row in found], source.num_samples, seed)
    left = set(range(len(found))).difference(drawn)
    corpus.conversations[first:] = [found[row] for row in drawn]
    corpus.rejections.extend(
        Rejection(found[row].origin, "not_sampled", f"num_samples is {source.num_samples}")
        for row in sorted(left)
    )


def _nothing_left(names: Sequence[str], corpus: Corpus) -> DataError:
    # A source without any row is refused by its reader, so each row here has left for a reason.
    counts = corpus.num_dropped()
    first = corpus.rejections[0]
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return DataError(
        f"none of the {corpus.num_rows_read} rows can be trained on: {listed}",
        where=", ".join(names),
        mend=f"{MENDS[next(iter(counts))]}. The first one, {first.origin}: {first.detail}.",
    )
