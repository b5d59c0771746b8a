"""Where rows went: the steps one by one, and the reasons with examples of rows that left.

In: a corpus's manifest, and dropped rows. Out: rows for the data card's tables, with bars as
per cent of their widest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.core.units import format_seconds
from luthier.report.shown_text import Piece, differences, shortened
from luthier.report.words import ReasonWords, Text, name_of, reason_words, share

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Dropped rows by reason, each with `step`, `reason`, `id`, `text`, `matched_text`, ..."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of the waterfall.

    Attributes:
        name: As the manifest has it.
        title: In plain words; the name again for a user's own step.
        rows_in: Rows that came.
        num_dropped: Rows that it took out.
        share: These of those, as text.
        kept_width: Bar of the rows that it handed on, in per cent of all rows.
        dropped_width: Bar of those that it did not.
        took: How long it took, as text, where that is known.
        from_cache: Whether an earlier run did it.
    """

    name: str
    title: Text
    rows_in: int
    num_dropped: int
    share: str
    kept_width: float
    dropped_width: float
    took: str | None
    from_cache: bool


@dataclass(frozen=True, slots=True)
class SampleView:
    """A dropped row beside the row that it matches, if any.

    Attributes:
        id: The row.
        origin: File and line.
        detail: The reason in this row's words.
        score: How alike or how sure, as text.
        matched_id: The other row.
        pieces: Its text.
        matched: The other row's text, where it may be shown and differs.
        is_same: Whether the other row has this very text.
    """

    id: str
    origin: str
    detail: str
    score: str | None
    matched_id: str | None
    pieces: list[Piece]
    matched: list[Piece]
    is_same: bool
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """A reason, how many rows left for it, and examples."""

    step: str
    reason: str
    words: ReasonWords
    num_rows: int
    share: str
    width: float
    samples: list[SampleView]


def num_rows_in(manifest: Mapping[str, Any]) -> int:
    """Return how many rows came in: what the first step was given."""
    steps = manifest.get("steps")
    if steps:
        return steps[0]["rows_in"]
    return sum(source.get("rows") or 0 for source in manifest.get("sources") or ())


def num_rows_left(manifest: Mapping[str, Any]) -> int:
    """Return how many rows are left: what the last step handed on."""
    steps = manifest.get("steps")
    if steps:
        return steps[-1]["rows_out"]
    return sum(source.get("rows_left") or 0 for source in manifest.get("sources") or ())


def waterfall(manifest: Mapping[str, Any]) -> list[StepRow]:
    """Return the steps in their order."""
    steps: Sequence[Mapping[str, Any]] = manifest.get("steps") or ()
    widest = max((step["rows_in"] for step in steps), default=0)
    rows: list[StepRow] = []
    for step in steps:
        num_dropped = sum((step.get("dropped") or {}).values())
        seconds = step.get("seconds")
        rows.append(
            StepRow(
                name=step["name"],
                title=name_of("steps", step["name"]),
                rows_in=step["rows_in"],
                num_dropped=num_dropped,
                share=share(num_dropped, step["rows_in"]),
                kept_width=width(step["rows_out"], widest),
                dropped_width=width(num_dropped, widest),
                took=None if seconds is None else format_seconds(seconds),
                from_cache=bool(step.get("from_cache")),
            )
        )
    return rows


def reasons(manifest: Mapping[str, Any], samples: Samples) -> list[ReasonRow]:
    """Return the reasons for which rows left, the most frequent first."""
    found = _by_reason(samples)
    counts = {
        (step["name"], reason): num_rows
        for step in manifest.get("steps") or ()
        for reason, num_rows in (step.get("dropped") or {}).items()
    }
    for key, rows in found.items():
        counts.setdefault(key, len(rows))
    widest = max(counts.values(), default=0)
    total = num_rows_in(manifest)
    return [
        ReasonRow(
            step=step,
            reason=reason,
            words=reason_words(step, reason),
            num_rows=num_rows,
            share=share(num_rows, total),
            width=width(num_rows, widest),
            samples=[_sample(row) for row in found.get((step, reason), ())],
        )
        for (step, reason), num_rows in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def width(part: float, whole: float) -> float:
    """Return the width of a bar in per cent."""
    return round(100 * part / whole, 2) if whole else 0.0


def _by_reason(samples: Samples) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for reason, rows in samples.items():
        for row in rows:
            key = row.get("step") or "", row.get("reason") or reason
            found.setdefault(key, []).append(row)
    return found


def _sample(row: Mapping[str, Any]) -> SampleView:
    text, other = row.get("text") or "", row.get("matched_text")
    is_same = other == text
    if other is None or is_same:
        pieces, matched = shortened(text), []
    else:
        pieces, matched = differences(text, other)
    score = row.get("score")
    return SampleView(
        id=row["id"],
        origin=row.get("origin") or "",
        detail=row.get("detail") or "",
        score=None if score is None else f"{score:.2f}",
        matched_id=row.get("matched_id"),
        pieces=pieces,
        matched=matched,
        is_same=is_same,
        text=text,
    )
