"""Decontamination: rows that hold a question or an answer of an evaluation set.

In: rows, and an index of the evaluation sets. Out: the rows without those that give a test away,
and for each of these the test row. A turn of a row is compared with a turn of a test: it is given
away where enough of its runs of eight words stand in the row, or, for a turn that is shorter than
that, where the row has it word by word.

Source:
    Brown et al., "Language models are few-shot learners" (2020), appendix C, and Gao et al.,
    "A framework for few-shot language model evaluation": overlap of word n-grams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.contracts.settings import Settings
from luthier.corpus.bad_rows import raise_unskippable
from luthier.corpus.readers.dispatch import read_rows
from luthier.corpus.steps.scopes import turn_texts
from luthier.corpus.steps.shingles import (
    Hashes,
    Shingles,
    hash_runs,
    hash_words,
    mix,
    offsets,
    spread,
)

RUN_WORDS = 8
_LEAST_WORDS = 6
"""A shorter turn ("The answer is B.") proves nothing."""
_MOST_ROWS = 10
"""What stands in more rows of one test than this is its template, and gives nothing away."""
Places = NDArray[np.int64]
Shares = NDArray[np.float64]


class DecontaminateSettings(Settings):
    """Which tests must not stand in the training data."""

    decontaminate_files: tuple[str, ...] = ()
    """Evaluation sets: json, jsonl, csv or parquet files. The validation file is always added."""

    decontaminate_threshold: float = Field(default=0.2, gt=0, le=1)
    """Drop a row that holds at least this share of the 8-word runs of one turn of a test row."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationIndex:
    """The turns of all evaluation sets, by what they consist of.

    Attributes:
        names: `file:row` of each turn.
        num_runs: Different runs of each turn that tell something, in the order of `names`.
        runs: Hash of each run, ascending; one that stands in two turns is here twice.
        run_turns: The turn of each of them.
        wholes: Hash of each whole turn of enough words, ascending.
        whole_turns: The turn of each of them.
    """

    names: tuple[str, ...]
    num_runs: Places
    runs: Hashes
    run_turns: Places
    wholes: Hashes
    whole_turns: Places


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """The step. The index is read once and travels with the step to other processes."""

    index: EvaluationIndex
    settings: DecontaminateSettings = field(default_factory=DecontaminateSettings)
    name: str = "decontaminate"

    def __call__(self, columns: Columns) -> StepResult:
        """Drop the rows that give a test away.

        Args:
            columns: Rows.
        """
        found = self._matches(turn_texts(columns))
        drops = [
            Drop(
                columns["id"][row],
                "leaked",
                f"{share:.2f} of a turn of {self.index.names[turn]}",
                self.index.names[turn],
                round(share, 4),
            )
            for row, (share, turn) in sorted(found.items())
        ]
        kept = [row for row in range(len(columns["id"])) if row not in found]
        return StepResult(
            {name: [values[row] for row in kept] for name, values in columns.items()}, drops
        )

    def _matches(self, rows: Sequence[Sequence[str]]) -> dict[int, tuple[float, int]]:
        """Return for each row that gives a test away how much of it, and which turn."""
        owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        words = hash_words([text for row in rows for text in row])
        texts, turns, shares = _shared_runs(words, self.index)
        enough = shares >= self.settings.decontaminate_threshold
        whole_texts, at = _find(_whole_turns(words), self.index.wholes)
        texts = np.concatenate([texts[enough], whole_texts])
        turns = np.concatenate([turns[enough], self.index.whole_turns[at]])
        shares = np.concatenate([shares[enough], np.ones(len(at))])
        # The most of a test counts, and of equals the first: it is written last.
        order = np.lexsort((-turns, shares))
        matches = zip(shares[order].tolist(), turns[order].tolist(), strict=True)
        return dict(zip(owners[texts[order]].tolist(), matches, strict=True))


def read_evaluation(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the turns of each row of an evaluation set: every text in it is a turn.

    Args:
        path: A json, jsonl, csv or parquet file with fields of any names.

    Raises:
        DataError: The file or a row of it can't be read.
    """
    for origin, row in read_rows(path, raise_unskippable):
        number = origin.row if origin.line is None else origin.line
        yield f"{path.name}:{number}", list(_texts_in(row))


def index_evaluation(sets: Iterable[Iterable[tuple[str, Sequence[str]]]]) -> EvaluationIndex:
    """Build the index of several evaluation sets.

    Args:
        sets: For each set its rows: a name, and the texts of the turns. Both the name and the
            texts reach the account of dropped rows only as the name and a share.
    """
    names: list[str] = []
    parts: list[tuple[Hashes, Places]] = []
    wholes: list[tuple[Hashes, Places]] = []
    for rows in sets:
        known = [(name, list(turns)) for name, turns in rows]
        texts = [text for _, turns in known for text in turns]
        owners = np.repeat(np.arange(len(known)), [len(turns) for _, turns in known])
        words = hash_words(texts)
        turns, runs = _rare(hash_runs(words, RUN_WORDS, keep_short=False), owners)
        parts.append((runs, turns + len(names)))
        turns, whole = _rare(_whole_turns(words), owners)
        wholes.append((whole, turns + len(names)))
        names += [name for name, turns in known for _ in turns]
    runs, run_turns = _ascending(parts)
    whole_hashes, whole_turns = _ascending(wholes)
    num_runs = np.bincount(run_turns, minlength=len(names))
    return EvaluationIndex(tuple(names), num_runs, runs, run_turns, whole_hashes, whole_turns)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        # System turns are the same in many rows, and no part of a test.
        if "system" not in (fields.get("role"), fields.get("from")):
            for inner in fields.values():
                yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in cast(list[Any], value):
            yield from _texts_in(inner)


def _rare(shingles: Shingles, owners: Places) -> tuple[Places, Hashes]:
    """Return turn and hash, each pair once, of what stands in few rows of the set."""
    _, numbers = np.unique(shingles.hashes, return_inverse=True)
    num_hashes = int(numbers.max()) + 1 if len(numbers) else 1
    in_rows = np.unique(owners[shingles.owners] * num_hashes + numbers) % num_hashes
    is_rare = np.bincount(in_rows, minlength=num_hashes) <= _MOST_ROWS
    _, firsts = np.unique(shingles.owners * num_hashes + numbers, return_index=True)
    firsts = firsts[is_rare[numbers[firsts]]]
    return shingles.owners[firsts], shingles.hashes[firsts]


def _shared_runs(words: Shingles, index: EvaluationIndex) -> tuple[Places, Places, Shares]:
    """Return text, turn of a test, and the share of the turn's runs that the text has."""
    texts, at = _find(hash_runs(words, RUN_WORDS, keep_short=False), index.runs)
    # A run that a text repeats counts once.
    texts, at = np.divmod(np.unique(texts * max(len(index.runs), 1) + at), max(len(index.runs), 1))
    num_turns = max(len(index.names), 1)
    pairs, shared = np.unique(texts * num_turns + index.run_turns[at], return_counts=True)
    texts, turns = np.divmod(pairs, num_turns)
    return texts, turns, shared / index.num_runs[turns]


def _whole_turns(words: Shingles) -> Shingles:
    """Return one hash for each text of enough words: of all its words in their order."""
    filled = np.flatnonzero(words.counts)
    places = np.arange(len(words.hashes)) - np.repeat(words.starts[:-1], words.counts)
    terms = mix(words.hashes + mix(places.astype(np.uint64)))
    sums = np.add.reduceat(terms, words.starts[filled]) if len(filled) else terms
    is_long = words.counts >= _LEAST_WORDS
    return Shingles(mix(sums)[is_long[filled]], offsets(is_long.astype(np.int64)))


def _ascending(parts: Sequence[tuple[Hashes, Places]]) -> tuple[Hashes, Places]:
    hashes = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.uint64)])
    turns = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int64)])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], turns[order]


def _find(shingles: Shingles, ordered: Hashes) -> tuple[Places, Places]:
    """Return the text and the place in an ascending array of each hash that stands there."""
    first = np.searchsorted(ordered, shingles.hashes, side="left")
    counts = np.searchsorted(ordered, shingles.hashes, side="right") - first
    return np.repeat(shingles.owners, counts), spread(first, counts)
