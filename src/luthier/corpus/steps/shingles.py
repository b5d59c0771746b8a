"""Texts as hashed words and hashed runs of words, computed on whole batches at once.

In: a list of texts. Out: flat arrays of hashes with the offset of each text. A word is a run of
letters, marks and digits after NFKC and case folding; where a script writes no spaces (Chinese,
Japanese, Thai and others) each character is a word. The hashes depend on the text alone: not on
the batch, the process or the machine.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.number)
Hashes = NDArray[np.uint64]

_CHARS_AT_ONCE = 1 << 17
_CHARS_IN_TABLE = 1 << 18
_FENCE = "\uffff"  # a noncharacter: no text for people holds it, and NFKC leaves it alone
_TABLE_SIZE = 0x40000
_APART, _LETTER, _ALONE = 0, 1, 2
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_SALT = np.uint64(0xD6E8FEB86659FD93)
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3347F),  # Chinese characters beyond the basic plane
)


@dataclass(frozen=True, slots=True)
class Shingles:
    """Hashes of several texts, one text after the other.

    Attributes:
        hashes: uint64, of all texts.
        starts: int64, one more than there are texts: text i has `hashes[starts[i]:starts[i + 1]]`.
    """

    hashes: Hashes
    starts: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many each text has."""
        return np.diff(self.starts)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The text that each hash stands in."""
        return np.repeat(np.arange(len(self.starts) - 1), self.counts)


def distinct(values: NDArray[_Number]) -> NDArray[_Number]:
    """Return the different values, ascending.

    `np.unique` looks them up in a table of hashes and sorts what it found: for millions of values
    that are mostly different, sorting alone takes a third of the time.
    """
    ordered = np.sort(values, axis=None)
    if len(ordered) < 2:
        return ordered
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


def hash_words(texts: Sequence[str]) -> Shingles:
    """Return the hash of each word of each text, in reading order.

    A text that is not blank but has no word, such as an emoji, counts as one word.

    Args:
        texts: Any number of texts of any length.
    """
    # ASCII, a byte a character, is done apart: it takes half the time.
    plain = [number for number, text in enumerate(texts) if text.isascii()]
    other = [number for number, text in enumerate(texts) if not text.isascii()]
    parts = [_hash_ascii(piece) for piece in _pieces([texts[number] for number in plain])]
    parts += [_hash_piece(piece) for piece in _pieces([texts[number] for number in other])]
    joined = _joined(parts)
    if not plain or not other:
        return joined
    begins = np.zeros(len(texts), np.int64)
    counts = np.zeros(len(texts), np.int64)
    begins[plain + other], counts[plain + other] = joined.starts[:-1], joined.counts
    return Shingles(joined.hashes[spread(begins, counts)], offsets(counts))


def hash_runs(words: Shingles, length: int, *, keep_short: bool) -> Shingles:
    """Return the hash of each run of `length` neighbouring words, within each text.

    Args:
        words: What `hash_words` returned.
        length: Words in a run, 1 or more.
        keep_short: A text of fewer words, but at least one, gives one run: all its words.

    Source:
        Broder, "On the resemblance and containment of documents" (1997): shingles.
    """
    num_words = words.counts
    num_runs = np.maximum(num_words - length + 1, 0)
    # Over the borders of texts too, and those left out at the end: that needs no list of places.
    hashes = np.zeros(max(len(words.hashes) - length + 1, 0), np.uint64)
    for step in range(length):
        hashes *= _BASE
        hashes += words.hashes[step : step + len(hashes)]
    runs = Shingles(mix(hashes[spread(words.starts[:-1], num_runs)]), offsets(num_runs))
    short = np.flatnonzero((num_words > 0) & (num_words < length))
    if not keep_short or not len(short):
        return runs
    whole = np.zeros(len(short), np.uint64)
    for step in range(length - 1):
        here = num_words[short] > step
        word = words.hashes[np.minimum(words.starts[short] + step, len(words.hashes) - 1)]
        whole = np.where(here, whole * _BASE + word, whole)
    merged = np.insert(runs.hashes, runs.starts[short], mix(whole))
    num_runs[short] = 1
    return Shingles(merged, offsets(num_runs))


def mix(values: Hashes) -> Hashes:
    """Spread the bits of each value over all 64, one to one.

    Source:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): the
        finaliser of SplitMix64.
    """
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of several runs of these lengths begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def spread(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places from `starts[i]` on, `counts[i]` of them, for each i in turn."""
    ends = np.cumsum(counts)
    num_places = int(ends[-1]) if len(ends) else 0
    return np.arange(num_places) + np.repeat(starts - (ends - counts), counts)


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut a batch so that the arrays of one piece stay small enough for the processor's cache."""
    piece: list[str] = []
    num_chars = 0
    for text in texts:
        piece.append(text)
        num_chars += len(text)
        if num_chars >= _CHARS_AT_ONCE:
            yield piece
            piece, num_chars = [], 0
    if piece:
        yield piece


def _joined(parts: Sequence[Shingles]) -> Shingles:
    counts = np.concatenate([part.counts for part in parts] or [np.zeros(0, np.int64)])
    hashes = np.concatenate([part.hashes for part in parts] or [np.zeros(0, np.uint64)])
    return Shingles(hashes, offsets(counts))


def _hash_ascii(texts: list[str]) -> Shingles:
    """Hash texts whose NFKC is themselves, and whose case folds to as many characters."""
    codes = np.frombuffer("\n".join(texts).lower().encode("ascii"), np.uint8)
    is_letter = (_kinds()[:128] == _LETTER)[codes]
    begins = is_letter.copy()
    begins[1:] &= ~is_letter[:-1]
    firsts = np.flatnonzero(begins)
    terms = np.where(_kinds()[:128] == _LETTER, np.arange(128, dtype=np.uint64) ^ _SALT, 0)[codes]
    starts = offsets(np.array([len(text) + 1 for text in texts]))
    counts = np.diff(np.searchsorted(firsts, starts))
    return _with_wordless(Shingles(_word_hashes(terms, firsts), offsets(counts)), texts)


def _hash_piece(texts: list[str]) -> Shingles:
    joined = _FENCE.join(texts)
    if joined.count(_FENCE) != len(texts) - 1:
        texts = [text.replace(_FENCE, " ") for text in texts]
        joined = _FENCE.join(texts)
    # One call for all texts: the fence composes with nothing, so that they can't touch each other.
    folded = unicodedata.normalize("NFKC", joined).casefold()
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[np.minimum(codes, _TABLE_SIZE - 1)]
    begins = kinds == _LETTER
    begins[1:] &= kinds[:-1] != _LETTER
    begins |= kinds == _ALONE
    firsts = np.flatnonzero(begins)
    counts = np.diff(
        np.searchsorted(firsts, np.flatnonzero(codes == ord(_FENCE))), prepend=0, append=len(firsts)
    )
    terms = np.where(kinds != _APART, codes ^ _SALT, np.uint64(0))
    return _with_wordless(Shingles(_word_hashes(terms, firsts), offsets(counts)), texts)


def _word_hashes(terms: Hashes, firsts: NDArray[np.int64]) -> Hashes:
    """Hash each word as a polynomial of its characters, over running sums of one for all of them.

    Args:
        terms: A number for each character of a word; 0 for those between words.
        firsts: Where words begin.
    """
    sums = np.cumsum(terms * _powers_of(_BASE, len(terms)))
    # All is modulo 2 ** 64, where an odd base has an inverse: that moves a word to place 0.
    before = np.concatenate([[np.uint64(0)], sums])[np.append(firsts, len(terms))]
    return mix(np.diff(before) * _powers_of(_INVERSE, len(terms))[firsts] * _BASE)


def _powers_of(base: np.uint64, num_powers: int) -> Hashes:
    """Return the powers of a number from the zeroth on."""
    if num_powers <= _CHARS_IN_TABLE:
        return _first_powers(base)[:num_powers]
    return _powers(base, num_powers)


@functools.cache
def _first_powers(base: np.uint64) -> Hashes:
    return _powers(base, _CHARS_IN_TABLE)


def _powers(base: np.uint64, num_powers: int) -> Hashes:
    powers = np.full(num_powers, base)
    powers[:1] = 1
    return np.cumprod(powers)


def _with_wordless(words: Shingles, texts: list[str]) -> Shingles:
    """Give texts of symbols only one word of their own, so that they can be told apart."""
    wordless = [int(i) for i in np.flatnonzero(words.counts == 0) if texts[i].strip()]
    if not wordless:
        return words
    hashes = [_hash_symbols("".join(texts[i].split())) for i in wordless]
    counts = words.counts.copy()
    counts[wordless] = 1
    merged = np.insert(words.hashes, words.starts[wordless], np.concatenate(hashes))
    return Shingles(merged, offsets(counts))


def _hash_symbols(text: str) -> Hashes:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _word_hashes(codes ^ _SALT, np.zeros(1, np.int64))


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """Return for each code point whether it is part of a word, a word alone, or neither."""
    kinds = np.zeros(_TABLE_SIZE, np.uint8)
    # The last entry stands for all code points above, which are no letters.
    for code in range(_TABLE_SIZE - 1):
        if unicodedata.category(chr(code))[0] in "LMN":
            kinds[code] = _LETTER
    for first, last in _SPACELESS:
        block = kinds[first : last + 1]
        block[block == _LETTER] = _ALONE
    return kinds
