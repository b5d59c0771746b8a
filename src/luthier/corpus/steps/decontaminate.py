"""Decontamination: rows that hold a question or an answer of an evaluation set.

In: rows, and an index of the evaluation sets. Out: the rows without those that give a test away,
and for each of these the test row. A turn of a row is compared with a turn of a test: it is given
away where enough of its runs of eight words stand in the row, or, for a turn that is shorter than
that, where the row has it word by word. A word that is changed breaks eight runs, and a turn of few
words has no others: it is also given away by a turn that shares most of its word pairs.

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

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus.bad_rows import raise_unskippable
from luthier.corpus.readers.dispatch import read_rows
from luthier.corpus.steps.scopes import turn_texts
from luthier.corpus.steps.settings import DecontaminateSettings
from luthier.corpus.steps.shingles import (
    Hashes,
    Shingles,
    distinct,
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
_SHORT_WORDS = (8, 23)
"""Turns of so many words are also compared by pairs; with fewer, a word changed is another turn."""
_LEAST_PAIRS = 5
"""A turn with fewer pairs that tell something has too little to compare."""
_TOLD_BITS = 20
_TOLD = np.uint64((1 << _TOLD_BITS) - 1)
Places = NDArray[np.int64]
Shares = NDArray[np.float64]
Flags = NDArray[np.bool_]


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
        num_pairs: Different pairs of words of each short turn that tell something; 0 for others.
        pairs: Hash of each of these pairs, ascending.
        pair_turns: The turn of each of them.
        templates: Hash of each pair of words that tells nothing.
    """

    names: tuple[str, ...]
    num_runs: Places
    runs: Hashes
    run_turns: Places
    wholes: Hashes
    whole_turns: Places
    num_pairs: Places
    pairs: Hashes
    pair_turns: Places
    templates: Hashes


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
        whole = _whole_turns(words)
        whole_texts, at = _find(whole.owners, whole.hashes, self.index.wholes)
        like_texts, like_turns, likeness = _shared_pairs(words, self.index)
        like = likeness >= self.settings.decontaminate_short_threshold
        texts = np.concatenate([texts[enough], whole_texts, like_texts[like]])
        turns = np.concatenate([turns[enough], self.index.whole_turns[at], like_turns[like]])
        shares = np.concatenate([shares[enough], np.ones(len(at)), likeness[like]])
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
    parts: list[_SetIndex] = []
    for rows in sets:
        known = [(name, list(turns)) for name, turns in rows]
        parts.append(_index_set([turns for _, turns in known], len(names)))
        names += [name for name, turns in known for _ in turns]
    runs, run_turns = _ascending([part.runs for part in parts])
    wholes, whole_turns = _ascending([part.wholes for part in parts])
    pairs, pair_turns = _ascending([part.pairs for part in parts])
    return EvaluationIndex(
        names=tuple(names),
        num_runs=np.bincount(run_turns, minlength=len(names)),
        runs=runs,
        run_turns=run_turns,
        wholes=wholes,
        whole_turns=whole_turns,
        num_pairs=np.bincount(pair_turns, minlength=len(names)),
        pairs=pairs,
        pair_turns=pair_turns,
        templates=np.concatenate([part.templates for part in parts] or [np.zeros(0, np.uint64)]),
    )


_Part = tuple[Places, Hashes]
"""Turns, and the hash of something that each of them has; no hash twice for a turn."""


@dataclass(frozen=True, slots=True)
class _SetIndex:
    """What one evaluation set brings to the index."""

    runs: _Part
    wholes: _Part
    pairs: _Part
    templates: Hashes


def _index_set(rows: Sequence[Sequence[str]], first_turn: int) -> _SetIndex:
    """Index the turns of one set, numbered from `first_turn` on."""
    owners = np.repeat(np.arange(len(rows)), [len(turns) for turns in rows])
    words = hash_words([text for turns in rows for text in turns])

    def rare(shingles: Shingles) -> _Part:
        turns, hashes = _distinct(shingles, _in_many_rows(shingles, owners))
        return turns + first_turn, hashes

    pairs = _pairs(words, *_SHORT_WORDS)
    return _SetIndex(
        runs=rare(hash_runs(words, RUN_WORDS, keep_short=False)),
        wholes=rare(_whole_turns(words)),
        pairs=rare(pairs),
        templates=_in_many_rows(pairs, owners),
    )


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


def _in_many_rows(shingles: Shingles, owners: Places) -> Hashes:
    """Return the hashes that stand in so many rows of the set that they are its template."""
    hashes, numbers = np.unique(shingles.hashes, return_inverse=True)
    num_hashes = max(len(hashes), 1)
    in_rows = distinct(owners[shingles.owners] * num_hashes + numbers) % num_hashes
    return hashes[np.bincount(in_rows, minlength=len(hashes)) > _MOST_ROWS]


def _distinct(shingles: Shingles, left_out: Hashes) -> _Part:
    """Return owner and hash, each pair once, but for some hashes."""
    hashes, numbers = np.unique(shingles.hashes, return_inverse=True)
    num_hashes = max(len(hashes), 1)
    owners, numbers = np.divmod(distinct(shingles.owners * num_hashes + numbers), num_hashes)
    is_left = ~np.isin(hashes, left_out)[numbers]
    return owners[is_left], hashes[numbers[is_left]]


def _shared_runs(words: Shingles, index: EvaluationIndex) -> tuple[Places, Places, Shares]:
    """Return text, turn of a test, and the share of the turn's runs that the text has."""
    runs = hash_runs(words, RUN_WORDS, keep_short=False)
    texts, at = _find(runs.owners, runs.hashes, index.runs)
    # A run that a text repeats counts once.
    texts, at = np.divmod(distinct(texts * len(index.runs) + at), max(len(index.runs), 1))
    texts, turns, shared = _count_shared(texts, at, index.run_turns)
    return texts, turns, shared / index.num_runs[turns]


def _shared_pairs(words: Shingles, index: EvaluationIndex) -> tuple[Places, Places, Shares]:
    """Return text, short turn of a test, and the share of the word pairs of both that they share.

    Templates are left out on both sides: in a test of capitals the name of the country counts.
    """
    # A text of twice as many words is no copy with changes.
    short = _pairs(words, 1, 2 * _SHORT_WORDS[1])
    is_met = np.zeros(len(words.counts), np.bool_)
    is_met[_find(short.owners, short.hashes, index.pairs)[0]] = True
    texts, pairs = _distinct(_of_texts(short, is_met), index.templates)
    num_pairs = np.bincount(texts, minlength=len(words.counts))
    texts, turns, shared = _count_shared(*_find(texts, pairs, index.pairs), index.pair_turns)
    enough = index.num_pairs[turns] >= _LEAST_PAIRS
    texts, turns, shared = texts[enough], turns[enough], shared[enough]
    return texts, turns, shared / (num_pairs[texts] + index.num_pairs[turns] - shared)


def _count_shared(texts: Places, at: Places, turns: Places) -> tuple[Places, Places, Places]:
    """Return text, turn of a test, and how many hashes they share, of places of shared hashes."""
    num_turns = int(turns.max()) + 1 if len(turns) else 1
    pairs, shared = np.unique(texts * num_turns + turns[at], return_counts=True)
    texts, turns = np.divmod(pairs, num_turns)
    return texts, turns, shared


def _pairs(words: Shingles, least: int, most: int) -> Shingles:
    """Return the hash of each pair of neighbouring words, of texts of so many words only."""
    is_within = (words.counts >= least) & (words.counts <= most)
    return hash_runs(_of_texts(words, is_within), 2, keep_short=False)


def _of_texts(shingles: Shingles, are_kept: Flags) -> Shingles:
    """Return the same texts, those that are not kept without a hash."""
    kept = shingles.hashes[np.repeat(are_kept, shingles.counts)]
    return Shingles(kept, offsets(np.where(are_kept, shingles.counts, 0)))


def _whole_turns(words: Shingles) -> Shingles:
    """Return one hash for each text of enough words: of all its words in their order."""
    filled = np.flatnonzero(words.counts)
    places = np.arange(len(words.hashes)) - np.repeat(words.starts[:-1], words.counts)
    terms = mix(words.hashes + mix(places.astype(np.uint64)))
    sums = np.add.reduceat(terms, words.starts[filled]) if len(filled) else terms
    is_long = words.counts >= _LEAST_WORDS
    return Shingles(mix(sums)[is_long[filled]], offsets(is_long.astype(np.int64)))


def _ascending(parts: Sequence[_Part]) -> tuple[Hashes, Places]:
    """Return the hashes of several sets in ascending order, and the turn of each of them."""
    turns = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int64)])
    hashes = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.uint64)])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], turns[order]


def _find(owners: Places, hashes: Hashes, ordered: Hashes) -> tuple[Places, Places]:
    """Return the text and the place in an ascending array of each hash that stands there."""
    if not len(ordered):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # Most stand nowhere, which the last bits tell of nearly all of them.
    may_be_there = np.zeros(1 << _TOLD_BITS, np.bool_)
    may_be_there[ordered & _TOLD] = True
    likely = np.flatnonzero(may_be_there[hashes & _TOLD])
    owners, hashes = owners[likely], hashes[likely]
    first = np.searchsorted(ordered, hashes, side="left")
    is_there = ordered[np.minimum(first, len(ordered) - 1)] == hashes
    owners, first = owners[is_there], first[is_there]
    counts = np.searchsorted(ordered, hashes[is_there], side="right") - first
    return np.repeat(owners, counts), spread(first, counts)
