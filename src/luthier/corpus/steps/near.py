"""Near-duplicates: rows whose prompt and whose answer say nearly the same as another row's.

In: rows. Out: the rows to drop, each with the kept row that it is like. The row as a whole must be
alike, and so must its prompt and its answer, each for itself, if less: the same question with
another answer is no copy, nor is the same answer to another question. Word pairs that stand in
many rows are templates and are left out of the comparison: rows that share one would all look
alike. The price: a row that more than a hundredth of the corpus copies with changes is taken for
a template, and its copies stay.

Source:
    Broder, "On the resemblance and containment of documents" (1997); Lee et al., "Deduplicating
    training data makes language models better" (2022), https://arxiv.org/abs/2107.06499.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.errors import SettingsError
from luthier.corpus.steps.candidates import DUPLICATES, candidate_pairs
from luthier.corpus.steps.gram_sets import (
    Flags,
    GramSets,
    Likeness,
    Places,
    frequent_grams,
    gather,
    likeness,
    sketch_rows,
    without,
)
from luthier.corpus.steps.scopes import scopes_of
from luthier.corpus.steps.settings import NearSettings
from luthier.corpus.steps.shingles import distinct, offsets, spread

_FEW_GRAMS = 8
"""Answers of fewer word pairs must be alike in full: there a word changed is another answer."""

_MAX_NEIGHBOURS = 32
"""A row with more duplicates than this connects none of them with each other."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The step. Of each group the best row stays, whatever the order of the rows."""

    settings: NearSettings = field(default_factory=NearSettings)
    name: str = "near"

    def sketch(self, columns: Columns) -> Columns:
        """Return id, hashed word pairs, and what decides which row is kept.

        Args:
            columns: Rows.

        Raises:
            SettingsError: The column that `near_quality_column` names is not there.
        """
        scopes = scopes_of(columns)
        return {
            "id": list(columns["id"]),
            "near_kind": scopes.kinds,
            "near_grams": sketch_rows(scopes.prompts, scopes.answers),
            "near_quality": self._qualities(columns),
            "near_chars": [len(answer) for answer in scopes.answers],
        }

    def decide(self, sketches: Columns) -> list[Drop]:
        """Return the rows to drop, ordered by id.

        Args:
            sketches: What `sketch` returned for all rows, in any order.

        Raises:
            MissingExtraError: rensa is not installed; install the extra `corpus`.
        """
        best_first = _best_first(sketches)
        ids = [sketches["id"][row] for row in best_first]
        kinds = [sketches["near_kind"][row] for row in best_first]
        sets = gather([sketches["near_grams"][row] for row in best_first])
        chosen = self.settings
        template = frequent_grams(sets, chosen.near_template_share, chosen.near_template_min_rows)
        sets, _ = without(sets, template)
        twins = _equal_sets(sets, kinds)
        keepers = _keepers(self._like(_only(sets, list(twins)), kinds))
        # A row of the same set as another shares its fate: the scores would be the same.
        for row, twin in twins.items():
            keepers[row] = keepers.get(twin, (twin, (1.0, 1.0, 1.0)))
        drops = [
            Drop(ids[row], "dup_near", _detail(kinds[row], scores), ids[keeper], scores[2])
            for row, (keeper, scores) in keepers.items()
        ]
        return sorted(drops, key=lambda drop: drop.id)

    def _like(self, sets: GramSets, kinds: Sequence[str]) -> _Like:
        """Return all pairs of rows that are near enough to be of one group."""
        left, right = candidate_pairs(sets, DUPLICATES, self.settings.near_threshold)
        numbers = np.unique(kinds, return_inverse=True)[1]
        same_kind = numbers[left] == numbers[right]
        left, right = left[same_kind], right[same_kind]
        near = self._fits(likeness(sets, left, right), self.settings.near_threshold)
        left, right = left[near], right[near]
        further = _two_steps(sets.num_rows, left, right)
        fits = self._fits(likeness(sets, *further), self.settings.near_group_floor)
        left = np.concatenate([left, further[0][fits]])
        right = np.concatenate([right, further[1][fits]])
        return _Like(left, right, likeness(sets, left, right))

    def _fits(self, found: Likeness, least: float) -> Flags:
        """Return which pairs are alike as a whole, and in prompt and answer each for itself."""
        short = found.answer_size < _FEW_GRAMS
        least_answer = np.where(
            short, self.settings.near_threshold, self.settings.near_scope_threshold
        )
        return (
            (found.whole >= least)
            & (found.prompt >= self.settings.near_scope_threshold)
            & (found.answer >= least_answer)
        )

    def _qualities(self, columns: Columns) -> list[Any]:
        name = self.settings.near_quality_column
        if name is None:
            return [0.0] * len(columns["id"])
        if name not in columns:
            raise SettingsError(
                f"near_quality_column: no row has a column {name}",
                mend=f"There are: {', '.join(columns)}.",
            )
        return [float("-inf") if value is None else float(value) for value in columns[name]]


@dataclass(frozen=True, slots=True)
class _Like:
    """Pairs of rows of one group, the better row to the left."""

    left: Places
    right: Places
    scores: Likeness


_Keeper = tuple[int, tuple[float, ...]]
"""The row that is kept, and how alike the prompts, the answers and the rows are."""


def _best_first(sketches: Columns) -> list[int]:
    """Return the rows in the order in which they are kept: this alone makes the result."""
    ranks = [
        (-quality, -num_chars, name)
        for quality, num_chars, name in zip(
            sketches["near_quality"], sketches["near_chars"], sketches["id"], strict=True
        )
    ]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def _equal_sets(sets: GramSets, kinds: Sequence[str]) -> dict[int, int]:
    """Return the rows whose set a better row of the same kind has too, with the best such row.

    They need no search, and would crowd the buckets.
    """
    first: dict[tuple[str, bytes], int] = {}
    best = [
        first.setdefault(key, row)
        for row, key in enumerate(zip(kinds, sets.row_bytes(), strict=True))
    ]
    return {row: twin for row, twin in enumerate(best) if twin != row}


def _only(sets: GramSets, left_out: list[int]) -> GramSets:
    """Return the same rows, some of them emptied."""
    counts = np.diff(sets.starts)
    counts[left_out] = 0
    grams = sets.grams[spread(sets.starts[:-1], counts)]
    return GramSets(grams, offsets(counts), sets.limits)


def _two_steps(num_rows: int, left: Places, right: Places) -> tuple[Places, Places]:
    """Return the pairs of rows that share a neighbour and aren't neighbours themselves."""
    source, target = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    degrees = np.bincount(source, minlength=num_rows)
    starts = offsets(degrees)[:-1]
    # Bounded, for the neighbours of a row with ten thousand make fifty million pairs.
    onward = np.where(degrees <= _MAX_NEIGHBOURS, degrees, 0)[target]
    begin, end = np.repeat(source, onward), target[spread(starts[target], onward)]
    upward = begin < end
    pairs = distinct(begin[upward] * num_rows + end[upward])
    pairs = np.setdiff1d(pairs, left * num_rows + right, assume_unique=True).astype(np.int64)
    return pairs // max(num_rows, 1), pairs % max(num_rows, 1)


def _keepers(like: _Like) -> dict[int, _Keeper]:
    """Go through the rows from the best on: keep a row unless it is like one that was kept.

    So every dropped row is like its keeper itself, never only through a chain of others.
    """
    better: defaultdict[int, list[int]] = defaultdict(list)
    for pair, row in enumerate(like.right.tolist()):
        better[row].append(pair)
    left, scores = like.left.tolist(), like.scores
    keepers: dict[int, _Keeper] = {}
    for row in sorted(better):
        kept = [pair for pair in better[row] if left[pair] not in keepers]
        if kept:
            best = max(kept, key=lambda pair: (scores.whole[pair], -left[pair]))
            shares = (scores.prompt[best], scores.answer[best], scores.whole[best])
            keepers[row] = left[best], tuple(round(float(share), 4) for share in shares)
    return keepers


def _detail(kind: str, scores: tuple[float, ...]) -> str:
    if kind.startswith("text"):
        return f"text {scores[1]:.2f}"
    return f"prompt {scores[0]:.2f}, answer {scores[1]:.2f}"
