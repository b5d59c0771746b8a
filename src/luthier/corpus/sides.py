"""Which rows train and which validate, and the proof that no validation row has a twin to train on.

In: the parts of a cleaned corpus. Out: for each row its side, and an account of the split. Rows
that are relatives of each other go to one side (`steps/groups.py`), and a row keeps its side when
others are added (`split.py`). Memory holds the sketches of all rows, never the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.contracts.corpus_step import Columns
from luthier.corpus.lengths import TokenRate, class_name, length_class
from luthier.corpus.parts import read_part
from luthier.corpus.runners import Runner
from luthier.corpus.split import Split
from luthier.corpus.steps.exact import ExactDuplicates
from luthier.corpus.steps.groups import (
    Audit,
    GroupSettings,
    audit_split,
    index_relatives,
    leak_free_split,
)
from luthier.corpus.steps.near import NearDuplicates
from luthier.corpus.text.fields import cell, num_rows, texts_of

_EXAMPLES = 20
_KEYS, _GRAMS = "exact_key", "near_grams"
SKETCHES = (_KEYS, _GRAMS)
"""Sketches of the steps `exact` and `near` that need not be made again, if they are at hand."""

Known = Mapping[str, Mapping[str, Any]]
"""Sketches by their name, and by the id of the row: of all rows, or not there."""


@dataclass(frozen=True, slots=True)
class SideChoice:
    """The side of each row.

    Attributes:
        is_val: One flag a row, in the order of the parts.
        account: What the manifest says of it; see `report/data_card.py`.
    """

    is_val: list[bool]
    account: dict[str, Any]


@dataclass(slots=True)
class _Sketches:
    """What the split needs to know of rows."""

    ids: list[str] = field(default_factory=list[str])
    keys: list[str] = field(default_factory=list[str])
    grams: list[bytes] = field(default_factory=list[bytes])
    tokens: list[float] = field(default_factory=list[float])
    categories: list[str | None] = field(default_factory=list[str | None])

    def add(self, other: _Sketches) -> None:
        self.ids += other.ids
        self.keys += other.keys
        self.grams += other.grams
        self.tokens += other.tokens
        self.categories += other.categories


@dataclass(frozen=True, slots=True)
class _SketchPart:
    """Work of one part: all but the sketches that are known."""

    rate: TokenRate
    known: frozenset[str]

    def __call__(self, path: Path) -> _Sketches:
        return _sketch(read_part(path), self.rate, self.known)


def choose_sides(
    parts: Sequence[Path],
    val_size: float,
    seed: int,
    settings: GroupSettings,
    rate: TokenRate,
    runner: Runner,
    known: Known | None = None,
) -> SideChoice:
    """Draw validation rows from a corpus.

    Args:
        parts: The rows.
        val_size: A share below 1, or a number of rows from 1 up.
        seed: Another seed draws other rows.
        settings: When rows are relatives.
        rate: Tells how long a row is, for the account.
        runner: Who sketches the parts.
        known: The `SKETCHES` of the rows, as far as they were made before.

    Raises:
        SettingsError: There are too few rows, or all are relatives.
        MissingExtraError: The extra `corpus` is not installed.
    """
    rows = _sketches(parts, rate, runner, known or {})
    index = index_relatives(rows.grams, settings)
    found = leak_free_split(index, rows.keys, val_size, seed)
    is_val = [False] * len(rows.ids)
    for row in found.split.val:
        is_val[row] = True
    account = {
        "by": "val_size",
        "val_size": val_size,
        "train": _weigh(rows, found.split.train),
        "val": _weigh(rows, found.split.val),
        "num_groups": len(set(found.groups)),
        "num_joined": found.num_joined,
        "strata": _strata(rows, found.split),
        "audit": _told(found.audit, rows.ids),
    }
    return SideChoice(is_val, account)


def audit_sides(
    train: Sequence[Path],
    val: Sequence[Path],
    settings: GroupSettings,
    rate: TokenRate,
    runner: Runner,
    known: Known | None = None,
) -> dict[str, Any]:
    """Look for relatives between two corpora that the user gave as training and validation.

    Args:
        train: Parts of the one.
        val: Parts of the other.
        settings: When rows are relatives.
        rate: Tells how long a row is.
        runner: Who sketches the parts.
        known: The `SKETCHES` of the training rows, as far as they were made before.

    Returns:
        The account of the split, for the manifest.

    Raises:
        MissingExtraError: The extra `corpus` is not installed.
    """
    rows = _sketches(train, rate, runner, known or {})
    num_train = len(rows.ids)
    rows.add(_sketches(val, rate, runner, {}))
    split = Split(list(range(num_train)), list(range(num_train, len(rows.ids))))
    audit = audit_split(index_relatives(rows.grams, settings), split)
    return {
        "by": "val_file",
        "val_size": 0.0,
        "train": _weigh(rows, split.train),
        "val": _weigh(rows, split.val),
        "strata": _strata(rows, split),
        "audit": _told(audit, rows.ids),
    }


def _sketches(parts: Sequence[Path], rate: TokenRate, runner: Runner, known: Known) -> _Sketches:
    every = _Sketches()
    for some in runner.map(_SketchPart(rate, frozenset(known)), parts):
        every.add(some)
    if _KEYS in known:
        every.keys = [known[_KEYS][id_] for id_ in every.ids]
    if _GRAMS in known:
        every.grams = [known[_GRAMS][id_] for id_ in every.ids]
    return every


def _sketch(columns: Columns, rate: TokenRate, known: frozenset[str]) -> _Sketches:
    rows = range(num_rows(columns))
    return _Sketches(
        ids=list(columns["id"]),
        keys=[] if _KEYS in known else ExactDuplicates().sketch(columns)[_KEYS],
        grams=[] if _GRAMS in known else NearDuplicates().sketch(columns)[_GRAMS],
        tokens=[sum(map(rate.tokens, texts_of(columns, row))) for row in rows],
        categories=[cell(columns, "category", row) for row in rows],
    )


def _weigh(rows: _Sketches, side: Sequence[int]) -> dict[str, int]:
    return {"rows": len(side), "tokens": round(sum(rows.tokens[row] for row in side))}


def _strata(rows: _Sketches, split: Split) -> dict[str, dict[str, dict[str, int]]]:
    """Return for each class of length, and each category, how many rows validate."""
    classes = [length_class(num_tokens) for num_tokens in rows.tokens]
    names = {class_name(edge): edge or 1 << 62 for edge in set(classes)}
    lengths = _drawn([class_name(edge) for edge in classes], split)
    strata = {"length": dict(sorted(lengths.items(), key=lambda item: names[item[0]]))}
    if any(category is not None for category in rows.categories):
        strata["category"] = _drawn([category or "-" for category in rows.categories], split)
    return strata


def _drawn(strata: Sequence[str], split: Split) -> dict[str, dict[str, int]]:
    sizes = Counter(strata)
    drawn = Counter(strata[row] for row in split.val)
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return {name: {"rows": size, "val": drawn[name]} for name, size in ordered}


def _told(audit: Audit, ids: Sequence[str]) -> dict[str, Any]:
    return {
        "share": round(audit.share, 6),
        "num_relatives": len(audit.relatives),
        "examples": [
            {"val": ids[found.val_row], "train": ids[found.train_row], "score": found.score}
            for found in audit.relatives[:_EXAMPLES]
        ],
    }
