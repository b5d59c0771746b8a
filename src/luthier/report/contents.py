"""What a corpus is made of, before and after its steps, and what was changed in rows that stay.

In: a corpus's manifest. Out: tables for the data card. What the manifest lacks gives an empty
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from luthier.report.attrition import width
from luthier.report.words import Text, name_of, number, reason_words, say, share

_ELSEWHERE = {"language": "language_", "read": "format_"}
_PII_VERBS = ("redacted", "masked", "found")


@dataclass(frozen=True, slots=True)
class Amount:
    """A count, its share as text, and its bar in per cent of the table's widest."""

    count: int
    share: str
    width: float


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One line of a table that compares: a name, and its count before and after."""

    name: Text
    before: Amount
    after: Amount


@dataclass(frozen=True, slots=True)
class ComparedTable:
    """A table of counts before and after the steps."""

    title: Text
    rows: list[ComparedRow]


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """What was done to kept rows, or found in them, and how often."""

    name: Text
    count: int
    width: float


@dataclass(frozen=True, slots=True)
class ChangeGroup:
    """Changes of one kind."""

    title: Text
    note: Text | None
    rows: list[ChangeRow]


@dataclass(frozen=True, slots=True)
class DuplicateRow:
    """Groups of rows that say the same, by how they were found."""

    kind: Text
    num_groups: int
    num_rows: int
    largest: list[tuple[str, int]]


def changes(manifest: Mapping[str, Any]) -> list[ChangeGroup]:
    """Return what the steps counted in rows that stay, by kind of change."""
    groups: dict[tuple[str, str | None], list[tuple[Text, int]]] = {}
    for step in manifest.get("steps") or ():
        for name, count in (step.get("counts") or {}).items():
            # Languages and formats have a place of their own.
            if not name.startswith(_ELSEWHERE.get(step["name"], ())):
                kind, words = _change(step["name"], name)
                groups.setdefault(kind, []).append((words, count))
    found: list[ChangeGroup] = []
    for (title, note), rows in groups.items():
        widest = max(count for _, count in rows)
        ordered = sorted(rows, key=lambda row: -row[1])
        changed = [ChangeRow(name, count, width(count, widest)) for name, count in ordered]
        found.append(ChangeGroup(say(title), None if note is None else say(note), changed))
    return found


def totals(statistics: Mapping[str, Any]) -> ComparedTable:
    """Return rows, characters and tokens, before and after."""
    sides = _sides(statistics)
    rows: list[ComparedRow] = []
    for name in ("rows", "characters", "tokens") if any(sides) else ():
        before, after = (side.get(name) or 0 for side in sides)
        widest = max(before, after)
        rows.append(
            ComparedRow(
                say(name),
                Amount(before, share(before, before), width(before, widest)),
                Amount(after, share(after, before), width(after, widest)),
            )
        )
    return ComparedTable(say("totals"), rows)


def make_up(statistics: Mapping[str, Any]) -> list[ComparedTable]:
    """Return the tables of languages, categories and kinds that have something to say."""
    tables = [
        ComparedTable(say(section), _compared(statistics, section, name))
        for section, name in (
            ("languages", lambda key: name_of("languages", key)),
            ("categories", Text.same),
            ("kinds", lambda key: name_of("kinds", key)),
        )
    ]
    return [table for table in tables if table.rows]


def lengths(statistics: Mapping[str, Any]) -> ComparedTable:
    """Return the classes of length in tokens, the shortest first, none between them left out."""
    sides = [dict(side.get("length_histogram") or ()) for side in _sides(statistics)]
    # Edge 0 stands for all that is longer than the last edge.
    edges = sorted({edge for side in sides for edge in side if edge})
    names = {edge: _range(low, edge) for low, edge in pairwise([0, *edges])}
    if any(0 in side for side in sides):
        names[0] = Text.same(f"> {number(edges[-1])}" if edges else "> 0")
    return ComparedTable(say("tokens"), _rows(sides[0], sides[1], list(names), names.__getitem__))


def tokens_note(statistics: Mapping[str, Any]) -> Text | None:
    """Return the sentence that says how tokens were counted."""
    kind, tokenizer = statistics.get("tokens_are"), statistics.get("tokenizer")
    if kind is None:
        return None
    if kind == "exact" and tokenizer:
        return say("tokens_exact", tokenizer=tokenizer)
    return say("tokens_estimated_by", tokenizer=tokenizer) if tokenizer else say("tokens_estimated")


def duplicates(statistics: Mapping[str, Any]) -> list[DuplicateRow]:
    """Return the groups of duplicates by the step that found them."""
    groups: Mapping[str, Mapping[str, Any] | None] = statistics.get("duplicate_groups") or {}
    return [
        DuplicateRow(
            say(kind) if kind in ("exact", "near", "semantic") else Text.same(kind),
            found.get("groups") or 0,
            found.get("rows") or 0,
            [(str(name), size) for name, size in found.get("largest") or ()],
        )
        for kind, found in groups.items()
        if found
    ]


def _change(step: str, name: str) -> tuple[tuple[str, str | None], Text]:
    """Return the group that a count belongs to (title and note), and its words."""
    verb, _, rest = name.partition("_")
    if step == "pii" and verb in _PII_VERBS:
        return ("pii", verb), name_of("pii", rest)
    if step == "read" and verb == "unused":
        return ("unused", None), Text.same(rest)
    if verb == "reported":
        return ("reported", None), reason_words(step, rest).name
    if step == "repair":
        return ("repairs", None), name_of("counts", name)
    return ("other", None), name_of("counts", name)


def _sides(statistics: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return statistics.get("before") or {}, statistics.get("after") or {}


def _compared(
    statistics: Mapping[str, Any], section: str, name: Callable[[str], Text]
) -> list[ComparedRow]:
    before, after = (side.get(section) or {} for side in _sides(statistics))
    return _rows(before, after, list(dict.fromkeys([*before, *after])), name)


def _rows(
    before: Mapping[Any, int],
    after: Mapping[Any, int],
    keys: Sequence[Any],
    name: Callable[[Any], Text],
) -> list[ComparedRow]:
    """Return one row a key. Bars compare shares: fewer rows are no news on each line."""
    sums = sum(before.values()), sum(after.values())

    def shares(key: Any) -> list[float]:
        return [
            side.get(key, 0) / whole if whole else 0.0
            for side, whole in zip((before, after), sums, strict=True)
        ]

    widest = max((max(shares(key)) for key in keys), default=0.0)
    rows: list[ComparedRow] = []
    for key in keys:
        amounts = [
            Amount(side.get(key, 0), share(side.get(key, 0), whole), width(part, widest))
            for side, whole, part in zip((before, after), sums, shares(key), strict=True)
        ]
        rows.append(ComparedRow(name(key), *amounts))
    return rows


def _range(low: int, high: int) -> Text:
    return Text.same(f"{number(low + 1)}–{number(high)}" if low else f"≤ {number(high)}")
