"""What the corpus hands on: conversations, and the rows that did not become one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

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
    """One turn. `weight` scales the loss of an assistant turn; 0 leaves it out of the loss."""

    role: Role
    content: str
    weight: float = 1.0


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
        return "\x1e".join(f"{m.role}\x1f{m.content}" for m in self.messages)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that left the pipeline.

    `reason` is one of a small set of names that are counted; `detail` says it for this row.
    """

    origin: Origin
    reason: str
    detail: str
    content: str = ""


@dataclass(slots=True)
class Corpus:
    """Conversations that were read, and an account of the rows that were not kept."""

    conversations: list[Conversation] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    num_rows_read: int = 0
    formats: Counter[str] = field(default_factory=Counter)

    def num_dropped(self) -> dict[str, int]:
        """Return how many rows left for each reason, most frequent first."""
        return dict(Counter(r.reason for r in self.rejections).most_common())
