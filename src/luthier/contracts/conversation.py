"""What the corpus hands on: rows of every kind, conversations, and the rows that became neither."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from, in the words that an error message needs.

    `line` counts from 1 in files that have lines; `row` counts from 0 in the source.
    """

    file: str
    row: int
    line: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return f"{self.file} row {self.row}"
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: Who speaks.
        content: What is said; it may be empty where tools are called.
        weight: Scales the loss of an assistant turn; 0 leaves it out of the loss.
        tool_calls: The calls of tools that an assistant turn makes, a JSON list as text.
    """

    role: Role
    content: str
    weight: float = 1.0
    tool_calls: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training row before any tokenizer has seen it.

    Attributes:
        messages: The turns in order; at least one of them is an assistant turn.
        origin: Where the row stood in the user's files.
        weight: Scales the loss of every supervised token of the row.
        task: The row's task, where the data names one (for task weights).
        category: The value of the column that a split is stratified by, where one is.
    """

    messages: tuple[Message, ...]
    origin: Origin
    weight: float = 1.0
    task: str | None = None
    category: str | None = None

    def key(self) -> str:
        """Return the text that tells this conversation from others, for hashes and duplicates."""
        return _turns_key(self.messages)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of any kind: a conversation, two ranked answers, a judged answer, or a text.

    Attributes:
        origin: Where the row stood in the user's files.
        messages: The turns in order; of ranked answers, those of the prompt; of a text, none.
        text: A document for pre-training.
        chosen: The turns of the better answer, where answers are ranked.
        rejected: The turns of the worse one.
        margin: By how much the better answer is better, where the row says so (reward models).
        label: Whether the answer is wanted, where the row says so (KTO).
        tools: The tools that the conversation may call, JSON as text.
        category: What a split keeps alike on both sides, and samples are bounded by.
        language: The language, where a step or the source told it.
        task: The row's task, for task weights.
        weight: Scales the loss of the row, task weights not included.
        question: What answers to its turns are judged by, where the model itself is to answer
            (`contracts/question.py`), JSON as text.
    """

    origin: Origin
    messages: tuple[Message, ...] = ()
    text: str | None = None
    chosen: tuple[Message, ...] | None = None
    rejected: tuple[Message, ...] | None = None
    margin: float | None = None
    label: bool | None = None
    tools: str | None = None
    category: str | None = None
    language: str | None = None
    task: str | None = None
    weight: float = 1.0
    question: str | None = None

    def key(self) -> str:
        """Return the text that tells this row from others; a conversation's is `Conversation`'s."""
        parts = [_turns_key(self.messages)]
        for mark, said in (
            ("text", self.text),
            ("chosen", None if self.chosen is None else _turns_key(self.chosen)),
            ("rejected", None if self.rejected is None else _turns_key(self.rejected)),
            ("label", None if self.label is None else str(self.label)),
            ("tools", self.tools),
        ):
            if said is not None:
                parts.append(f"{mark}\x1f{said}")
        return "\x1d".join(parts)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that left the pipeline.

    `reason` is one of a small set of names that are counted; `detail` says it for this row.
    """

    origin: Origin
    reason: str
    detail: str
    content: str = ""


T = TypeVar("T", bound=Conversation | Record)


@dataclass(slots=True)
class Corpus(Generic[T]):
    """Rows that were read for training, and an account of those that were not kept.

    Attributes:
        conversations: What is kept, in the order of sources and rows: conversations, or records of
            the kind that the stage learns from.
        rejections: The rows that left, with the reason.
        num_rows_read: Both together.
        formats: How many rows were of which format.
        unused: For each field that nothing was read from, how many rows have it filled.
    """

    conversations: list[T] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    num_rows_read: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    def num_dropped(self) -> dict[str, int]:
        """Return how many rows left for each reason, most frequent first."""
        return dict(Counter(r.reason for r in self.rejections).most_common())


def _turns_key(messages: tuple[Message, ...]) -> str:
    return "\x1e".join(
        f"{m.role}\x1f{m.content}" + (f"\x1f{m.tool_calls}" if m.tool_calls else "")
        for m in messages
    )
