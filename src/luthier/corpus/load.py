"""Sources in, a corpus out: read, unify, filter, with a reason for each row that left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from luthier.contracts.conversation import (
    Conversation,
    Corpus,
    Message,
    Origin,
    Record,
    Rejection,
)
from luthier.core.errors import SettingsError, did_you_mean
from luthier.core.files import write_text
from luthier.corpus.bad_rows import RowError, raise_unskippable
from luthier.corpus.formats import layout_finder, text_layout_finder
from luthier.corpus.judged_rows import (
    JudgedKind,
    judged_layout_finder,
    pair_from_row,
    verdict_from_row,
)
from luthier.corpus.layouts import Layout, Row
from luthier.corpus.prompt_rows import prompt_layout_finder, question_from_row
from luthier.corpus.read import nothing_left
from luthier.corpus.readers.dispatch import read_rows
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.source_rows import Convert, T, not_sampled, source_rows, too_few
from luthier.corpus.split import sample_rows
from luthier.corpus.unify import conversation_from_row, document_from_row, prompt_from_row


def load_corpus(
    sources: Iterable[Source], settings: CorpusSettings, *, seed: int = 0
) -> Corpus[Conversation]:
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
    return _load(sources, settings, seed, layout_finder, conversation_from_row)


def load_documents(
    sources: Iterable[Source], settings: CorpusSettings, *, seed: int = 0
) -> Corpus[Record]:
    """Read all rows of the sources into documents; arguments and errors as of `load_corpus`.

    Returns:
        Records with a `text` that is not blank.
    """
    return _load(sources, settings, seed, text_layout_finder, document_from_row)


def load_judged(
    sources: Iterable[Source], settings: CorpusSettings, kind: JudgedKind, *, seed: int = 0
) -> Corpus[Record]:
    """Read all rows of the sources as answers that are judged; otherwise as `load_corpus`.

    Args:
        sources: Where the rows come from.
        settings: What is kept, and what becomes of a row that can't be used.
        kind: Whether rows rank two answers, or say of one whether it is wanted.
        seed: Draws the rows of sources with `num_samples`.

    Raises:
        DataError: As `load_corpus`.
    """
    convert = pair_from_row if kind == "pairs" else verdict_from_row
    return _load(
        sources, settings, seed, lambda source: judged_layout_finder(source, kind), convert
    )


def load_questions(
    sources: Iterable[Source], settings: CorpusSettings, *, seed: int = 0
) -> Corpus[Record]:
    """Read all rows of the sources as prompts to be answered; otherwise as `load_corpus`.

    Returns:
        Records with a `question`. No field counts as unused: reward functions see them all.
    """
    corpus = _load(sources, settings, seed, prompt_layout_finder, question_from_row)
    corpus.unused.clear()
    return corpus


def _load(
    sources: Iterable[Source],
    settings: CorpusSettings,
    seed: int,
    finder: Callable[[Source], Callable[[Row], Layout]],
    convert: Convert[T],
) -> Corpus[T]:
    corpus = Corpus[T]()
    names: list[str] = []
    for source in sources:
        names.append(source.label)
        first = len(corpus.conversations)
        for row in source_rows(source, settings, finder(source), convert):
            if row.rejection is not None:
                corpus.rejections.append(row.rejection)
            elif row.record is not None:
                corpus.formats[str(row.format)] += 1
                corpus.unused.update(row.unused)
                corpus.conversations.append(row.record)
        _draw(source, seed, corpus, first)
    corpus.num_rows_read = len(corpus.conversations) + len(corpus.rejections)
    if not corpus.conversations:
        # A source without any row is refused by its reader: each row here has left for a reason.
        raise nothing_left(names, Counter(corpus.num_dropped()), corpus.rejections[0])
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


def check_tasks(corpus: Corpus[Any], settings: CorpusSettings) -> None:
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


def _draw(source: Source, seed: int, corpus: Corpus[T], first: int) -> None:
    """Keep `num_samples` of a source's conversations, which stand from `first` on."""
    if source.num_samples is None:
        return
    found = corpus.conversations[first:]
    if len(found) < source.num_samples:
        raise too_few(source, len(found))
    drawn = sample_rows([row.key() for row in found], source.num_samples, seed)
    left = set(range(len(found))).difference(drawn)
    corpus.conversations[first:] = [found[row] for row in drawn]
    corpus.rejections.extend(not_sampled(source, found[row].origin) for row in sorted(left))
