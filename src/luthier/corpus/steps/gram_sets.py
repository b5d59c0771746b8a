"""The word pairs of each row as a set of 32-bit hashes, prompt and answer apart.

In: prompts and answers. Out: one sorted array of hashes a row, as bytes, that can be cached and
sent between processes; and how alike two rows are, by Jaccard. The top bit tells an answer's hash
from a prompt's. A set is cut to its `MAX_GRAMS` smallest hashes: two cut sets are compared over
the range of hashes that both cover, which estimates the similarity of the whole, so that memory
is bounded however long a document is.

Source:
    Broder, "On the resemblance and containment of documents" (1997): the sketch of least hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.corpus.steps.shingles import distinct, hash_runs, hash_words, offsets, spread

WORDS_IN_GRAM = 2
MAX_GRAMS = 2048
"""Of each scope. Documents above about 2,000 words are compared by estimate, to about .01."""

_ANSWER = np.uint32(1 << 31)
_ALL = np.uint32(0xFFFFFFFF)
_GRAMS_AT_ONCE = 1 << 22
Places = NDArray[np.int64]
Flags = NDArray[np.bool_]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GramSets:
    """Sets of rows, one after the other.

    Attributes:
        grams: uint32, ascending and distinct within a row; the top bit set: of the answer.
        starts: int64, one more than there are rows.
        limits: uint32 of shape (rows, 2), the largest hash that prompt and answer cover.
    """

    grams: NDArray[np.uint32]
    starts: Places
    limits: NDArray[np.uint32]

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def scopes(self) -> Places:
        """For each hash: twice its row, and one more where it is of the answer."""
        rows = np.repeat(np.arange(self.num_rows), np.diff(self.starts))
        return 2 * rows + (self.grams >= _ANSWER)

    def row_bytes(self) -> list[bytes]:
        """Return the set of each row as bytes; equal sets have equal bytes."""
        whole = self.grams.tobytes()
        ends = (4 * self.starts).tolist()
        return [whole[ends[row] : ends[row + 1]] for row in range(self.num_rows)]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Jaccard similarity of pairs of rows, each from 0 to 1; two empty scopes are alike.

    Attributes:
        prompt: Of the prompts.
        answer: Of the answers.
        whole: Of both scopes taken together.
        answer_size: Different word pairs of both answers: few of them tell little.
    """

    prompt: Shares
    answer: Shares
    whole: Shares
    answer_size: Places


def sketch_rows(prompts: Sequence[str], answers: Sequence[str]) -> list[bytes]:
    """Return the set of word pairs of each row, as bytes for `GramSets`.

    Args:
        prompts: One a row.
        answers: One a row.
    """
    keys: list[NDArray[np.uint64]] = []
    for texts, bit in ((prompts, 0), (answers, int(_ANSWER))):
        runs = hash_runs(hash_words(texts), WORDS_IN_GRAM, keep_short=True)
        grams = (runs.hashes >> np.uint64(33)) | np.uint64(bit)
        keys.append((runs.owners.astype(np.uint64) << np.uint64(32)) | grams)
    merged = distinct(np.concatenate(keys))
    scopes = (merged >> np.uint64(31)).astype(np.int64)
    counts = np.bincount(scopes, minlength=2 * len(prompts))
    rank = np.arange(len(merged)) - offsets(counts)[scopes]
    kept = merged[rank < MAX_GRAMS]
    rows = (kept >> np.uint64(32)).astype(np.int64)
    starts = offsets(np.bincount(rows, minlength=len(prompts)))
    return GramSets(kept.astype(np.uint32), starts, np.zeros((0, 2), np.uint32)).row_bytes()


def gather(sketches: Sequence[bytes]) -> GramSets:
    """Return the sets of all rows in one table.

    Args:
        sketches: What `sketch_rows` returned, in any order.
    """
    grams = np.frombuffer(b"".join(sketches), np.uint32)
    sizes = np.fromiter((len(sketch) // 4 for sketch in sketches), np.int64, len(sketches))
    sets = GramSets(grams, offsets(sizes), np.zeros((0, 2), np.uint32))
    counts = np.bincount(sets.scopes, minlength=2 * len(sketches))
    limits = np.full(len(counts), _ALL)
    full = np.flatnonzero(counts == MAX_GRAMS)
    limits[full] = grams[offsets(counts)[full + 1] - 1]
    return GramSets(grams, sets.starts, limits.reshape(-1, 2))


def frequent_grams(sets: GramSets, share: float, min_rows: int) -> NDArray[np.uint32]:
    """Return the hashes that stand in more than a share of all rows, ascending.

    Args:
        sets: All rows.
        share: Of the rows, from 0 to 1.
        min_rows: A hash in no more rows than this is never frequent.
    """
    grams, num_rows_with = np.unique(sets.grams, return_counts=True)
    return grams[num_rows_with > max(share * sets.num_rows, min_rows)]


def without(sets: GramSets, grams: NDArray[np.uint32]) -> tuple[GramSets, Flags]:
    """Take hashes out of all sets, but leave a scope as it is where nothing else stands in it.

    A prompt made of nothing but frequent words must still differ from another one.

    Args:
        sets: All rows.
        grams: The hashes, ascending.

    Returns:
        The sets; and flags of shape (rows, 2): the prompt, the answer was left as it is, or empty.
    """
    keep = ~is_among(sets.grams, grams)
    scopes = sets.scopes
    bare = np.bincount(scopes[keep], minlength=2 * sets.num_rows) == 0
    keep |= bare[scopes]
    rows = scopes[keep] >> 1
    starts = offsets(np.bincount(rows, minlength=sets.num_rows))
    return GramSets(sets.grams[keep], starts, sets.limits), bare.reshape(-1, 2)


def is_among(values: NDArray[np.uint32], ordered: NDArray[np.uint32]) -> Flags:
    """Return which values stand in an ascending array."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def likeness(sets: GramSets, left: Places, right: Places) -> Likeness:
    """Return how alike the rows of each pair are.

    Args:
        sets: All rows.
        left: One row of each pair.
        right: The other row.
    """
    sizes = np.diff(sets.starts)
    ends = np.cumsum(sizes[left] + sizes[right])
    cuts = np.searchsorted(ends, np.arange(_GRAMS_AT_ONCE, ends[-1:].sum(), _GRAMS_AT_ONCE))
    parts = [
        _likeness(sets, some_left, some_right)
        for some_left, some_right in zip(np.split(left, cuts), np.split(right, cuts), strict=True)
    ]
    return Likeness(
        np.concatenate([part.prompt for part in parts]),
        np.concatenate([part.answer for part in parts]),
        np.concatenate([part.whole for part in parts]),
        np.concatenate([part.answer_size for part in parts]),
    )


def _likeness(sets: GramSets, left: Places, right: Places) -> Likeness:
    limits = np.minimum(sets.limits[left], sets.limits[right]).ravel()
    # Two ascending arrays: a stable sort has only to merge them.
    both = np.concatenate([_keyed(sets, rows, limits) for rows in (left, right)])
    both.sort(kind="stable")
    scopes = (both >> np.uint64(31)).astype(np.int64)
    total = np.bincount(scopes, minlength=2 * len(left))
    shared = np.bincount(scopes[1:][both[1:] == both[:-1]], minlength=2 * len(left))
    union = (total - shared).reshape(-1, 2)
    shared = shared.reshape(-1, 2)
    apart = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
    all_of = union.sum(axis=1)
    whole = np.where(all_of > 0, shared.sum(axis=1) / np.maximum(all_of, 1), 1.0)
    return Likeness(apart[:, 0], apart[:, 1], whole, union[:, 1])


def _keyed(sets: GramSets, rows: Places, limits: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return pair and hash in one number, for the hashes that both rows of the pair cover."""
    sizes = np.diff(sets.starts)[rows]
    grams = sets.grams[spread(sets.starts[rows], sizes)]
    pairs = np.repeat(np.arange(len(rows), dtype=np.uint64), sizes)
    keys = (pairs << np.uint64(32)) | grams
    covered = grams <= limits[(keys >> np.uint64(31)).astype(np.int64)]
    return keys if covered.all() else keys[covered]
