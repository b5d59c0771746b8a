"""Conversations to prepared rows: rendered, brought under the length limit, accounted for.

In: the corpus of one side, training or validation. Out: its rows, grouped by conversation so that
a split can't part them, with a reason for each row that left. A `RowKind` says how the rows of a
stage come about; the one of documents stands in `documents.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from luthier.contracts.conversation import Conversation, Corpus, Record, Rejection
from luthier.core.errors import DataError
from luthier.corpus.load import load_corpus
from luthier.dataset.rendering import Rendered, Renderer, stop_token_ids
from luthier.dataset.row_table import Row
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.templates import ChatTemplate
from luthier.dataset.transcript import Remark, Transcript
from luthier.dataset.truncation import shorten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_SIZE = 256
"""Conversations that are tokenised together."""

MAX_REJECTED_CHARS = 2_000

Splits = Mapping[str, Sequence[Row]]
"""Rows by the name of their split."""

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(slots=True)
class Side:
    """The rows of one corpus as they are made.

    Attributes:
        conversations: Those (or the records) that gave at least one row.
        rows: Their rows, conversation by conversation.
        rejections: Rows that left, from reading on.
        num_read: Rows read.
        num_cut: Rows that were cut to `cutoff_len`.
        num_tokens_cut: Tokens that they lost.
        num_continued: Rows that end inside of a document, which goes on in the next row.
        unused: For each field of the rows that nothing was read from, how many rows have it.
        remarks: For each remark the origins of the rows that carry it.
    """

    conversations: list[Conversation | Record] = field(default_factory=list[Conversation | Record])
    rows: list[list[Row]] = field(default_factory=list[list[Row]])
    rejections: list[Rejection] = field(default_factory=list[Rejection])
    num_read: int = 0
    num_cut: int = 0
    num_tokens_cut: int = 0
    num_continued: int = 0
    unused: Counter[str] = field(default_factory=Counter[str])
    remarks: defaultdict[Remark, list[str]] = field(
        default_factory=lambda: defaultdict[Remark, list[str]](list)
    )

    @classmethod
    def of(cls, corpus: Corpus[Any]) -> Side:
        """Begin with what reading left out."""
        return cls(
            rejections=list(corpus.rejections),
            num_read=corpus.num_rows_read,
            unused=corpus.unused.copy(),
        )

    def keys(self, indexes: Sequence[int]) -> list[str]:
        """Return what tells some of the conversations from others."""
        return [self.conversations[i].key() for i in indexes]

    def rows_of(self, indexes: Sequence[int]) -> list[Row]:
        """Return the rows of some of the conversations, in order."""
        return [row for i in indexes for row in self.rows[i]]


def fill_side(
    corpus: Corpus[Any], add: Callable[[Sequence[Any], Side], None], progress: Report
) -> Side:
    """Return the rows of a corpus, made some conversations (or records) at a time, in its order.

    Args:
        corpus: What rows are made of.
        add: Makes the rows of some of it, and puts them or their rejections into the side.
        progress: Called as the work goes on.
    """
    side = Side.of(corpus)
    num_all = len(corpus.conversations)
    for start in range(0, num_all, BATCH_SIZE):
        progress("tokenising", start, num_all)
        add(corpus.conversations[start : start + BATCH_SIZE], side)
    progress("tokenising", num_all, num_all)
    return side


@dataclass(frozen=True, slots=True)
class SideMaker:
    """Makes rows of conversations.

    Attributes:
        renderer: Tokenizer, template and mask.
        settings: What becomes of rows that are too long.
        skip_refused: Leave out conversations that the template refuses, instead of ending the run.
        progress: Called as the work goes on.
    """

    renderer: Renderer
    settings: DatasetSettings
    skip_refused: bool
    progress: Report

    def make(self, corpus: Corpus[Conversation]) -> Side:
        """Return the rows of a corpus, in its order.

        Raises:
            DataError: The template refuses a conversation, and `skip_refused` is off.
        """
        return fill_side(corpus, self._add, self.progress)

    def _add(self, conversations: Sequence[Conversation], side: Side) -> None:
        transcripts: list[Transcript] = []
        owners: list[int] = []
        self.renderer.foresee(conversations)
        for number, conversation in enumerate(conversations):
            written = self._transcripts(conversation, side)
            transcripts += written
            owners += [number] * len(written)
        rows: defaultdict[int, list[Row]] = defaultdict(list)
        for owner, group in zip(owners, self.renderer.encode(transcripts), strict=True):
            for row in group:
                kept = self._fit(row, side)
                if kept is not None:
                    rows[owner].append(kept)
        for owner, made in rows.items():
            side.conversations.append(conversations[owner])
            side.rows.append(made)

    def _transcripts(self, conversation: Conversation, side: Side) -> list[Transcript]:
        written = write_out(self.renderer, conversation, self.skip_refused)
        if isinstance(written, Rejection):
            side.rejections.append(written)
            return []
        return written

    def _fit(self, row: Rendered | Rejection, side: Side) -> Row | None:
        """Bring one row under the length limit and pack it; None if it leaves."""
        if isinstance(row, Rendered) and len(row.input_ids) > self.settings.cutoff_len:
            num_tokens = len(row.input_ids)
            row = self._shorten(row)
            if isinstance(row, Rendered):
                side.num_cut += 1
                side.num_tokens_cut += num_tokens - len(row.input_ids)
        if isinstance(row, Rendered) and not any(row.loss_weights):
            detail = "nothing of its answer is left to learn from"
            row = rejected(row.transcript.conversation, "no_supervised_token", detail)
        if isinstance(row, Rejection):
            side.rejections.append(row)
            return None
        packed = Row.of(row)
        for remark in row.transcript.remarks:
            side.remarks[remark].append(packed.origin)
        return packed

    def _shorten(self, row: Rendered) -> Rendered | Rejection:
        settings = self.settings
        if settings.on_long_row == "cut":
            return shorten(row, self.renderer, settings.cutoff_len, settings.min_answer_share)
        detail = f"{len(row.input_ids)} tokens, cutoff_len is {settings.cutoff_len}"
        return rejected(row.transcript.conversation, "too_long", detail)


@dataclass(frozen=True, slots=True)
class RowKind:
    """How the rows of a stage come about; the rest of a preparation is the same for all stages.

    Attributes:
        load: Reads the sources into a corpus (sources, settings, seed=...).
        make: Makes rows of it (corpus, tokenizer, settings, whether what is refused is skipped,
            progress).
        describe: Returns what of the tokenizer decides the rows beside its ids, for their key.
        stop_token_ids: Returns the ids that the rows teach to stop at.
        is_judged: Whether it is made of answers that are judged, so that entries of a catalogue
            which rank answers are what it takes.
        is_taught: Whether the rows themselves hold what is learned, and not prompts alone.
        complete: Adds to the rows what they need of one another (splits by name, `cutoff_len`,
            seed).
    """

    load: Callable[..., Corpus[Any]]
    make: Callable[[Corpus[Any], PreTrainedTokenizerFast, DatasetSettings, bool, Report], Side]
    describe: Callable[[PreTrainedTokenizerFast], dict[str, Any]]
    stop_token_ids: Callable[[PreTrainedTokenizerFast], list[int]]
    is_judged: bool = False
    is_taught: bool = True
    complete: Callable[[Splits, int, int], Splits] = lambda splits, _cutoff_len, _seed: splits


def make_conversation_rows(
    corpus: Corpus[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    settings: DatasetSettings,
    skip_refused: bool,
    progress: Report,
) -> Side:
    """Return the rows of a corpus of conversations.

    Args:
        corpus: Conversations.
        tokenizer: With its chat template set.
        settings: Mask and length.
        skip_refused: As for `SideMaker`.
        progress: Called as the work goes on.

    Raises:
        DataError: The template refuses a conversation, and `skip_refused` is off.
    """
    renderer = Renderer(
        tokenizer,
        train_on_prompt=settings.train_on_prompt,
        mask_history=settings.mask_history,
        default_system=settings.default_system,
    )
    return SideMaker(renderer, settings, skip_refused, progress).make(corpus)


def describe_template(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the text of the chat template, and the day where the template writes it."""
    template = ChatTemplate.of(tokenizer).text
    described = {"template": template}
    if "strftime_now" in template:
        described["date"] = date.today().isoformat()
    return described


CONVERSATIONS = RowKind(
    load=load_corpus,
    make=make_conversation_rows,
    describe=describe_template,
    stop_token_ids=stop_token_ids,
)
"""Conversations as rows: what `stage: sft` learns from."""


def write_out(
    renderer: Renderer, conversation: Conversation, skip_refused: bool
) -> list[Transcript] | Rejection:
    """Write one conversation out, or return why it leaves.

    Args:
        renderer: Its template and mask.
        conversation: What to write.
        skip_refused: Count a refusal of the template, instead of ending the run.

    Raises:
        DataError: The template refuses the conversation, and `skip_refused` is off.
    """
    try:
        written = renderer.transcripts(conversation)
    except DataError as error:
        if not skip_refused:
            mend = f"{error.mend} Or set on_bad_row: skip to leave such rows out."
            raise DataError(error.problem, where=error.where, mend=mend) from error
        return rejected(conversation, "template_refused", error.problem)
    if not written:
        return rejected(conversation, "no_supervised_token", "every answer has weight 0")
    return written


def rejected(conversation: Conversation | Record, reason: str, detail: str) -> Rejection:
    """Return the account of a conversation that leaves, with the end of what it says."""
    content = conversation.messages[-1].content[:MAX_REJECTED_CHARS]
    return Rejection(conversation.origin, reason, detail, content)
