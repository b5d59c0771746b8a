"""A corpus step: a pure function from columns to columns, and an account of the rows it dropped.

The same step runs in one process, in a process pool and on Ray Data: it holds settings only, can be
pickled, and looks at nothing but the columns that it is given.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

Columns = dict[str, list[Any]]
"""Rows as columns of equal length. Every row has these:

    id        str, unique in the corpus and the same in every run
    source    str, the name of the source
    origin    str, `file:line`, for people
    messages  list of {"role": str, "content": str, "weight": float, "tool_calls": str or None};
              tool_calls is a JSON list as text; the list is empty for plain text
    text      str or None, a document for pre-training
    chosen, rejected   list of messages like the above, or None (preference data)
    margin    float or None (by how much chosen is better, for reward models)
    label     bool or None (KTO)
    tools     str or None, JSON
    category, language, task   str or None
    weight    float

A step may add columns of its own; it never changes `id`.
"""


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that a step took out.

    Attributes:
        id: The row.
        reason: One of a small set of names that are counted, for example `dup_near`.
        detail: The reason in this row's own words; never the value of anything secret.
        matched_id: The row that it duplicates or leaks from, where there is one.
        score: How sure, or how similar, from 0 to 1, where the step measures it.
    """

    id: str
    reason: str
    detail: str
    matched_id: str | None = None
    score: float | None = None


@dataclass(slots=True)
class StepResult:
    """What a step hands on.

    Attributes:
        columns: The rows that are kept, changed or not, in the order in which they came.
        drops: The rows that are not.
        counts: What was done to kept rows, by name, for example `{"redacted_email": 3}`.
    """

    columns: Columns
    drops: list[Drop] = field(default_factory=list[Drop])
    counts: Counter[str] = field(default_factory=Counter[str])


class Step(Protocol):
    """A step that looks at each row alone."""

    @property
    def name(self) -> str:
        """The step's name, as settings and accounts have it."""
        ...

    def __call__(self, columns: Columns) -> StepResult:
        """Work on one batch of rows; the result does not depend on how rows are batched."""
        ...


@runtime_checkable
class GlobalStep(Protocol):
    """A step that compares rows with each other: sketch each batch, then decide over all."""

    @property
    def name(self) -> str:
        """The step's name, as settings and accounts have it."""
        ...

    def sketch(self, columns: Columns) -> Columns:
        """Return `id` and the small columns that the decision needs, row by row."""
        ...

    def decide(self, sketches: Columns) -> list[Drop]:
        """Return which rows go; the same for any order of the rows."""
        ...
