"""How a corpus was divided into training and validation, and what the audit says of it.

In: the part `split` of a corpus's manifest. Out: sentences and tables for the data card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.report.attrition import width
from luthier.report.words import Text, number, say, share

MOST_STRATA = 50
"""A table of strata has at most this many lines; the largest come first."""
_MOST_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the split."""

    name: Text
    num_rows: int
    share: str
    width: float
    num_tokens: int | None


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows of one length class or category, and how many of them validate."""

    name: str
    num_rows: int
    num_val: int
    share: str
    width: float


@dataclass(frozen=True, slots=True)
class Strata:
    """A table of strata.

    Attributes:
        title: By what rows were divided.
        rows: The strata that are listed.
        num_more: How many are not.
    """

    title: Text
    rows: list[Stratum]
    num_more: int


@dataclass(frozen=True, slots=True)
class Division:
    """The split as the card tells it.

    Attributes:
        sentences: How it was made.
        sides: Training and validation.
        strata: How evenly rows were drawn.
        audit: What the audit found; None where there was none.
        is_leaking: Whether it found anything.
        examples: Pairs that it found: validation row, training row, likeness.
    """

    sentences: list[Text]
    sides: list[Side]
    strata: list[Strata]
    audit: Text | None
    is_leaking: bool
    examples: list[tuple[str, str, str]]


def division(split: Mapping[str, Any] | None) -> Division | None:
    """Return what the card says of the split, or None where all rows train."""
    if not split:
        return None
    audit: Mapping[str, Any] | None = split.get("audit")
    strata: Mapping[str, Mapping[str, Any]] = split.get("strata") or {}
    return Division(
        sentences=_sentences(split),
        sides=_sides(split),
        strata=[_strata(kind, names) for kind, names in strata.items() if names],
        audit=None if audit is None else _audit(audit),
        is_leaking=bool(audit and audit.get("num_relatives")),
        examples=[_example(pair) for pair in (audit or {}).get("examples") or ()][:_MOST_EXAMPLES],
    )


def kind_of_strata(kind: str, *, prefix: str) -> Text:
    """Return the words for `length` or `category`, or the name of another column itself."""
    return say(f"{prefix}_{kind}") if kind in ("length", "category") else Text.same(kind)


def stratum_name(kind: str, name: str) -> str:
    """Return a stratum's name, a class of length in figures alone."""
    return name.replace(" to ", "–").replace("over ", "> ") if kind == "length" else name


def _sentences(split: Mapping[str, Any]) -> list[Text]:
    if split.get("by") == "val_file":
        return [say("split_by_file")]
    size = split.get("val_size")
    sentences = [say("split_by_size", val_size="-" if size is None else f"{size:g}")]
    if split.get("num_groups") is not None:
        groups, joined = number(split["num_groups"]), number(split.get("num_joined") or 0)
        sentences.append(say("split_groups", groups=groups, joined=joined))
    return sentences


def _sides(split: Mapping[str, Any]) -> list[Side]:
    found = [
        (say(label), split.get(key) or {})
        for label, key in (("training", "train"), ("validation", "val"))
    ]
    total = sum(side.get("rows") or 0 for _, side in found)
    return [
        Side(name, rows := side.get("rows") or 0, share(rows, total), width(rows, total), tokens)
        for name, side in found
        for tokens in [side.get("tokens")]
    ]


def _strata(kind: str, names: Mapping[str, Mapping[str, int]]) -> Strata:
    listed = list(names.items())[:MOST_STRATA]
    shares = {name: found["val"] / max(found["rows"], 1) for name, found in listed}
    widest = max(shares.values())
    rows = [
        Stratum(
            stratum_name(kind, name),
            found["rows"],
            found["val"],
            share(found["val"], found["rows"]),
            width(shares[name], widest),
        )
        for name, found in listed
    ]
    return Strata(kind_of_strata(kind, prefix="stratum"), rows, len(names) - len(listed))


def _audit(audit: Mapping[str, Any]) -> Text:
    num = audit.get("num_relatives") or 0
    if not num:
        return say("audit_clean")
    return say("audit_leak", num=number(num), share=share(audit.get("share") or 0, 1))


def _example(pair: Any) -> tuple[str, str, str]:
    score = pair.get("score")
    return str(pair["val"]), str(pair["train"]), "" if score is None else f"{score:.2f}"
