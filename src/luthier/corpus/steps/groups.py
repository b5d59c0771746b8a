"""Groups of relatives for the split, and the audit of the split that was made.

In: the hashed word pairs of each row (`sketch_rows`). Out: a group for each row, so that all rows
of a group go to one side; and after the split, which validation rows have a relative in training.
Two rows are relatives where they share .4 of their word pairs as a whole, templates left out, or
have the same prompt. That is looser than a duplicate: what remains alike after duplicates are
gone still tells the answer. The groups come from signatures, which can miss a pair; the audit
compares each validation row with all of training and misses none (documents of over 2,000 words
are compared by estimate). `leak_free_split` joins what the audit finds and draws again, until it
finds nothing.

Source:
    Bayardo, Ma and Srikant, "Scaling up all pairs similarity search" (2007): of two sets that share
    enough, one must have one of the other's rarest members (the audit).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.corpus.split import Split, split_groups
from luthier.corpus.steps.candidates import RELATIVES, candidate_pairs, components
from luthier.corpus.steps.gram_sets import (
    GramSets,
    Places,
    frequent_grams,
    gather,
    likeness,
    without,
)
from luthier.corpus.steps.settings import GroupSettings
from luthier.corpus.steps.shingles import offsets, spread

_TEMPLATE_SHARE = 0.01
_TEMPLATE_MIN_ROWS = 20
_PAIRS_AT_ONCE = 1 << 22
_MET = 5
"""Shared rare hashes that make a pair worth comparing: more of them, fewer pairs, longer lists."""
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Relative:
    """A validation row that stands in training, nearly.

    Attributes:
        val_row: Its row number.
        train_row: The training row that is most like it.
        score: How alike they are, from 0 to 1; 1 where the prompt is the same.
    """

    val_row: int
    train_row: int
    score: float


@dataclass(frozen=True, slots=True)
class Audit:
    """What the audit of a split found.

    Attributes:
        share: Of the validation rows, those with a relative in training; 0 of a split to be used.
        relatives: One for each of them.
    """

    share: float
    relatives: list[Relative]


@dataclass(frozen=True, slots=True)
class GroupedSplit:
    """A split that the audit found nothing in.

    Attributes:
        split: The row numbers of both sides.
        groups: For each row the lowest row number of its group.
        num_joined: Pairs that signatures had missed and the audit added to the groups.
        audit: Of this split; its share is 0.
    """

    split: Split
    groups: list[int]
    num_joined: int
    audit: Audit


@dataclass(frozen=True, slots=True)
class RelativeIndex:
    """All rows, ready to be compared.

    Attributes:
        sets: Their word pairs without templates.
        same_prompt: For each row the lowest row with the same prompt; itself where the prompt is
            nothing but template, for then it says nothing.
        least: From how alike on rows are relatives.
    """

    sets: GramSets
    same_prompt: Places
    least: float


def index_relatives(sketches: Sequence[bytes], settings: GroupSettings) -> RelativeIndex:
    """Prepare rows for `near_groups` and `audit_split`.

    Args:
        sketches: What `sketch_rows` returned for each row.
        settings: When rows are relatives.
    """
    full = gather(sketches)
    sets, bare = without(full, frequent_grams(full, _TEMPLATE_SHARE, _TEMPLATE_MIN_ROWS))
    first: dict[bytes, int] = {}
    same_prompt: list[int] = []
    num_prompt = np.bincount(full.scopes, minlength=2 * full.num_rows)[::2].tolist()
    for row, (sketch, size) in enumerate(zip(sketches, num_prompt, strict=True)):
        tells = size > 0 and not bare[row, 0]
        same_prompt.append(first.setdefault(sketch[: 4 * size], row) if tells else row)
    return RelativeIndex(sets, np.array(same_prompt, np.int64), settings.split_likeness)


def near_groups(index: RelativeIndex) -> list[int]:
    """Return for each row the lowest row of its group: relatives, and relatives of relatives.

    Args:
        index: All rows.

    Raises:
        MissingExtraError: rensa is not installed; install the extra `corpus`.
    """
    left, right = candidate_pairs(index.sets, RELATIVES, index.least)
    alike = likeness(index.sets, left, right).whole >= index.least
    rows = np.arange(index.sets.num_rows)
    left = np.concatenate([left[alike], index.same_prompt])
    right = np.concatenate([right[alike], rows])
    return components(len(rows), left, right).tolist()


def audit_split(index: RelativeIndex, split: Split) -> Audit:
    """Look for each validation row's relatives in training, among all of training.

    Args:
        index: All rows.
        split: Their two sides.
    """
    found: dict[int, tuple[float, int]] = {}
    train = np.array(split.train, np.int64)
    first_with = {int(index.same_prompt[row]): row for row in reversed(split.train)}
    for row in split.val:
        if (twin := first_with.get(int(index.same_prompt[row]))) is not None:
            found[row] = 1.0, -twin
    for left, right in _sharing(index, np.array(split.val, np.int64), train):
        scores = likeness(index.sets, left, right).whole
        for row, twin, score in zip(left.tolist(), right.tolist(), scores.tolist(), strict=True):
            if score >= index.least:
                found[row] = max(found.get(row, (0.0, 0)), (score, -twin))
    relatives = [Relative(row, -twin, round(score, 4)) for row, (score, twin) in found.items()]
    relatives.sort(key=lambda relative: relative.val_row)
    return Audit(len(relatives) / max(len(split.val), 1), relatives)


def leak_free_split(
    index: RelativeIndex, keys: Sequence[str], val_size: float, seed: int
) -> GroupedSplit:
    """Split so that no validation row has a relative in training.

    Args:
        index: All rows.
        keys: The content of each row, as `split_groups` takes it.
        val_size: A share below 1, or a number of rows from 1 up; 0 leaves all rows to training.
        seed: Another seed draws other rows.

    Raises:
        MissingExtraError: rensa is not installed.
        SettingsError: There are too few rows, or all are of one group.
    """
    groups = near_groups(index)
    num_joined = 0
    while True:
        split = split_groups(keys, groups, val_size, seed)
        audit = audit_split(index, split)
        if not audit.relatives:
            return GroupedSplit(split, groups, num_joined, audit)
        # Each round joins two groups at least, so that the rounds come to an end.
        num_joined += len(audit.relatives)
        left = [groups[found.val_row] for found in audit.relatives]
        right = [groups[found.train_row] for found in audit.relatives]
        lowest = components(len(groups), np.array(left), np.array(right))
        groups = lowest[groups].tolist()


def _sharing(index: RelativeIndex, val: Places, train: Places) -> Iterator[tuple[Places, Places]]:
    """Yield the pairs of which the training row has several of the validation row's rarest hashes.

    A relative shares at least `least` of a row's hashes. Whatever it shares, if all but the
    rarest are set aside, and one fewer of them than that, at least one of those is left; if k - 1
    fewer are set aside, k are.
    """
    num_rows = index.sets.num_rows
    owners, grams = _rows_and_grams(index.sets, val)
    train_rows, train_grams = _rows_and_grams(index.sets, train)
    postings = np.sort((train_grams << _HALF) | train_rows.astype(np.uint64))
    first = np.searchsorted(postings, grams << _HALF)
    counts = np.searchsorted(postings, (grams + np.uint64(1)) << _HALF) - first
    order = np.lexsort((counts, owners))
    sizes = np.bincount(owners, minlength=num_rows)
    least = np.ceil(index.least * sizes - 1e-9).astype(np.int64)
    num_met = np.minimum(least, _MET)
    rank = np.arange(len(order)) - offsets(sizes)[owners[order]]
    chosen = order[rank < (sizes - least + num_met)[owners[order]]]
    ends = np.cumsum(counts[chosen])
    cuts = np.searchsorted(ends, np.arange(_PAIRS_AT_ONCE, ends[-1:].sum(), _PAIRS_AT_ONCE))
    # All hashes of a row in one piece, for they are counted.
    cuts = np.unique(np.searchsorted(owners[chosen], owners[chosen][cuts]))
    for some in np.split(chosen, cuts):
        met = postings[spread(first[some], counts[some])] & _LOW
        keys = np.repeat(owners[some], counts[some]) * num_rows + met.astype(np.int64)
        pairs, shared = np.unique(keys, return_counts=True)
        pairs = pairs[shared >= num_met[pairs // max(num_rows, 1)]]
        yield pairs // max(num_rows, 1), pairs % max(num_rows, 1)


def _rows_and_grams(sets: GramSets, rows: Places) -> tuple[Places, NDArray[np.uint64]]:
    sizes = np.diff(sets.starts)[rows]
    grams = sets.grams[spread(sets.starts[rows], sizes)]
    return np.repeat(rows, sizes), grams.astype(np.uint64)
