"""Documents to prepared rows, for pre-training: whole ones, and pieces of those that are too long.

In: the corpus of one side. Out: its rows, document by document. A document begins with BOS where
the tokenizer wants one, and ends with EOS. One of more than `cutoff_len` tokens goes on in further
rows, each of which begins with the last token of the row before it:

    document   a b c d e f g h EOS          (cutoff_len 4)
    rows       a b c d | d e f g | g h EOS
    labels     . b c d | . e f g | . h EOS

So every token but the first is predicted just once, and no row begins with a target that nothing
predicts. Nothing is cut off, and no row holds parts of two documents: batches lay rows end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.contracts.conversation import Corpus, Record, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import ModelError
from luthier.corpus.load import load_documents
from luthier.dataset.row_table import Row
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import BATCH_SIZE, MAX_REJECTED_CHARS, Report, RowKind, Side
from luthier.dataset.tokens import Encoder, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_BATCH_CHARS = 4 << 20
"""Characters after which a batch ends: the tokenizer's account of a text is many times its size."""


@dataclass(frozen=True, slots=True)
class DocumentMaker:
    """Makes rows of documents.

    Attributes:
        encoder: The tokenizer.
        bos: The id that begins a document, or None.
        eos: The id that ends it.
        cutoff_len: Tokens that a row may have.
        progress: Called as the work goes on.
    """

    encoder: Encoder
    bos: int | None
    eos: int
    cutoff_len: int
    progress: Report

    def make(self, corpus: Corpus[Record]) -> Side:
        """Return the rows of a corpus, in its order."""
        side = Side.of(corpus)
        num_all, done = len(corpus.conversations), 0
        for records in _batches(corpus.conversations):
            self.progress("tokenising", done, num_all)
            texts = [record.text or "" for record in records]
            for record, tokens in zip(records, self.encoder.encode_batch(texts), strict=True):
                self._add(record, tokens, side)
            done += len(records)
        self.progress("tokenising", num_all, num_all)
        return side

    def _add(self, record: Record, tokens: Tokens, side: Side) -> None:
        document = _Document.of(record, tokens, self.bos, self.eos)
        if not document.num_text:
            side.rejections.append(_rejection(record, "empty_text", "no token stands for its text"))
            return
        if record.weight == 0:
            side.rejections.append(_rejection(record, "no_supervised_token", "its weight is 0"))
            return
        rows = list(document.rows(self.cutoff_len))
        side.conversations.append(record)
        side.rows.append(rows)
        side.num_continued += len(rows) - 1
        if not self.encoder.control_ids.isdisjoint(document.ids_of_text()):
            side.remarks["control_tokens"].append(str(record.origin))


@dataclass(frozen=True, slots=True)
class _Document:
    """A document of n tokens, its marks included.

    Attributes:
        record: Where it comes from.
        tokens: Those of its text. An EOS that the text spells at its end is not counted to it.
        num_text: How many of them count.
        text_end: Where the text ends, in characters.
        ids: int32, all n.
        num_before: 1 where BOS was put before the text, else 0.
    """

    record: Record
    tokens: Tokens
    num_text: int
    text_end: int
    ids: Any = field(repr=False)
    num_before: int

    @classmethod
    def of(cls, record: Record, tokens: Tokens, bos: int | None, eos: int) -> _Document:
        num_text, text_end = len(tokens.ids), len(record.text or "")
        if num_text and tokens.ids[-1] == eos:
            num_text -= 1
            text_end = tokens.start(num_text)
        before = [bos] if bos is not None and tokens.ids[:1] != [bos] else []
        ids = np.asarray([*before, *tokens.ids[:num_text], eos], dtype=np.int32)
        return cls(record, tokens, num_text, text_end, ids, len(before))

    def ids_of_text(self) -> Sequence[int]:
        return self.tokens.ids[: self.num_text]

    def rows(self, cutoff_len: int) -> Iterator[Row]:
        """Yield the document in rows that overlap by one token."""
        num_tokens, text = len(self.ids), self.record.text or ""
        starts = range(0, num_tokens - 1, cutoff_len - 1)
        for number, start in enumerate(starts, start=1):
            ids = self.ids[start : start + cutoff_len]
            labels = ids.copy()
            labels[0] = IGNORE_INDEX
            weights = None
            if self.record.weight != 1:
                weights = np.full(len(ids), self.record.weight, dtype=np.float32)
                weights[0] = 0.0
            part = f" (part {number} of {len(starts)})" if len(starts) > 1 else ""
            taught = text[self._end(start) : self._end(start + len(ids) - 1)]
            yield Row(
                input_ids=ids,
                labels=labels,
                loss_weights=weights,
                origin=f"{self.record.origin}{part}",
                text_bytes=len(taught.encode("utf-8")),
            )

    def _end(self, index: int) -> int:
        """Return where the token of that number ends in the text."""
        index -= self.num_before
        if index < 0:
            return 0
        return self.text_end if index >= self.num_text else self.tokens.end(index)


def make_document_rows(
    corpus: Corpus[Record],
    tokenizer: PreTrainedTokenizerFast,
    settings: DatasetSettings,
    skip_refused: bool,
    progress: Report,
) -> Side:
    """Return the rows of a corpus of documents.

    Args:
        corpus: Documents.
        tokenizer: With an end token; a chat template has no say.
        settings: How long rows may be.
        skip_refused: Nothing that was read is refused here.
        progress: Called as the work goes on.

    Raises:
        ModelError: As `end_token_id`.
    """
    del skip_refused
    maker = DocumentMaker(
        Encoder(tokenizer),
        begin_token_id(tokenizer),
        end_token_id(tokenizer),
        settings.cutoff_len,
        progress,
    )
    return maker.make(corpus)


def begin_token_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the id of BOS where the tokenizer itself puts it before a text, else None."""
    bos = tokenizer.bos_token_id
    ids: Any = tokenizer("a")["input_ids"]
    return bos if isinstance(bos, int) and ids[:1] == [bos] else None


def end_token_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that ends a document.

    Raises:
        ModelError: The tokenizer names none.
    """
    eos = tokenizer.eos_token_id
    if isinstance(eos, int):
        return eos
    raise ModelError(
        "its tokenizer names no end token, which separates documents",
        where=str(tokenizer.name_or_path) or None,
        mend='Add "eos_token" to the folder\'s tokenizer_config.json.',
    )


DOCUMENTS = RowKind(
    load=load_documents,
    make=make_document_rows,
    describe=lambda _tokenizer: {"rows": "documents"},
    stop_token_ids=lambda tokenizer: [end_token_id(tokenizer)],
)
"""Documents as rows: what `stage: pt` learns from. BOS and EOS follow from the tokenizer."""


def _batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield the records in runs of few enough rows and characters."""
    batch: list[Record] = []
    num_chars = 0
    for record in records:
        length = len(record.text or "")
        if batch and (len(batch) == BATCH_SIZE or num_chars + length > MAX_BATCH_CHARS):
            yield batch
            batch, num_chars = [], 0
        batch.append(record)
        num_chars += length
    if batch:
        yield batch


def _rejection(record: Record, reason: str, detail: str) -> Rejection:
    return Rejection(record.origin, reason, detail, (record.text or "")[:MAX_REJECTED_CHARS])
