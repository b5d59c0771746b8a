"""Pairs of rows that may be alike: MinHash signatures, and bands of them that are equal.

In: sets of hashes. Out: pairs of row numbers, to be confirmed by whoever asked. The number of pairs
grows with the number of rows, not with its square, however many rows share a template.

Source:
    Broder, "On the resemblance and containment of documents" (1997): MinHash; Indyk and Motwani,
    "Approximate nearest neighbors" (1998): locality-sensitive hashing. The signatures are those
    of rensa, https://github.com/beowolx/rensa.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.core.errors import MissingExtraError
from luthier.corpus.steps.gram_sets import GramSets, Places
from luthier.corpus.steps.shingles import Hashes, distinct, mix

_SEED = 20261101
_ROWS_AT_ONCE = 4096
_REACH = 8
"""In a bucket each row is paired with the first row and with this many rows after it."""


@dataclass(frozen=True, slots=True)
class Bands:
    """How signatures are compared.

    A pair of similarity s is found with probability 1 - (1 - s ** width) ** num_bands.
    """

    num_bands: int
    width: int

    @property
    def num_hashes(self) -> int:
        """Length of a signature."""
        return self.num_bands * self.width


DUPLICATES = Bands(num_bands=32, width=4)
"""Finds .988 of pairs at .6, .999 at .68; .19 at .28."""

RELATIVES = Bands(num_bands=85, width=3)
"""Finds .996 of pairs at .4."""


def signatures(sets: GramSets, num_hashes: int) -> NDArray[np.uint32]:
    """Return the MinHash signature of each row, of shape (rows, num_hashes).

    Args:
        sets: All rows.
        num_hashes: Length of a signature: the permutations.

    Raises:
        MissingExtraError: rensa is not installed; install the extra `corpus`.
    """
    try:
        from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise MissingExtraError.of("rensa", "corpus", "near-duplicate search") from error
    found = np.zeros((sets.num_rows, num_hashes), np.uint32)
    for first in range(0, sets.num_rows, _ROWS_AT_ONCE):
        starts = sets.starts[first : first + _ROWS_AT_ONCE + 1]
        # rensa takes hashes of 64 bits, and counts on all of them being random.
        hashes = mix(sets.grams[starts[0] : starts[-1]].astype(np.uint64))
        rows = (starts - starts[0]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, rows, num_hashes, _SEED)
        found[first : first + len(starts) - 1] = matrix.to_rows()
    return found


def candidate_pairs(sets: GramSets, bands: Bands, min_likeness: float) -> tuple[Places, Places]:
    """Return pairs of rows that may be alike as a whole, the lower row number first.

    Args:
        sets: All rows. The first row of a bucket is paired with all others: put rows first that
            should be found most surely.
        bands: How signatures are compared.
        min_likeness: Pairs whose signatures say less than this, allowing for chance, are left out.

    Raises:
        MissingExtraError: rensa is not installed.
    """
    # Rows without a hash have one signature, and nothing to compare.
    filled = np.flatnonzero(np.diff(sets.starts))
    found = signatures(sets, bands.num_hashes)
    pairs = np.zeros(0, np.uint64)
    for band in range(bands.num_bands):
        columns = found[filled, band * bands.width : (band + 1) * bands.width]
        met = _bucket_pairs(_band_keys(columns), filled)
        pairs = distinct(np.concatenate([pairs, met]))
    left = (pairs >> np.uint64(32)).astype(np.int64)
    right = (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    # Three and a half standard deviations of the estimate.
    margin = 3.5 * float(np.sqrt(min_likeness * (1 - min_likeness) / bands.num_hashes))
    likely = _estimates(found, left, right) >= min_likeness - margin
    return left[likely], right[likely]


def components(num_rows: int, left: Places, right: Places) -> Places:
    """Return for each row the lowest row that it is connected with, over any number of pairs.

    Args:
        num_rows: How many rows there are.
        left: One row of each pair.
        right: The other row.
    """
    lowest = np.arange(num_rows)
    while True:
        least = np.minimum(lowest[left], lowest[right])
        following = lowest.copy()
        # What the rows point at is lowered too, or long chains would need a round a link.
        for at in (left, right, lowest[left], lowest[right]):
            np.minimum.at(following, at, least)
        following = following[following]
        if np.array_equal(following, lowest):
            return lowest
        lowest = following


def _band_keys(columns: NDArray[np.uint32]) -> Hashes:
    keys = np.zeros(len(columns), np.uint64)
    for column in range(columns.shape[1]):
        keys = mix(keys ^ columns[:, column].astype(np.uint64))
    return keys


def _bucket_pairs(keys: Hashes, rows: Places) -> Hashes:
    """Pair the rows with equal keys: each with its first, and with the next few after it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    numbers = rows[order].astype(np.uint64)
    follows = np.zeros(len(keys), np.bool_)
    follows[1:] = ordered[1:] == ordered[:-1]
    firsts = np.maximum.accumulate(np.where(follows, 0, np.arange(len(keys))))
    inner = np.flatnonzero(follows)
    found = [_pair(numbers[firsts[inner]], numbers[inner])]
    for step in range(1, _REACH + 1):
        later = inner[inner - step >= firsts[inner]]
        found.append(_pair(numbers[later - step], numbers[later]))
    return distinct(np.concatenate(found))


def _pair(left: Hashes, right: Hashes) -> Hashes:
    """Write two row numbers as one number."""
    return np.bitwise_or(np.left_shift(left, np.uint64(32)), right)


def _estimates(found: NDArray[np.uint32], left: Places, right: Places) -> NDArray[np.float64]:
    shares = np.zeros(len(left))
    for first in range(0, len(left), _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        shares[some] = (found[left[some]] == found[right[some]]).mean(axis=1)
    return shares
