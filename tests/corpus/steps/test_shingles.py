from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.corpus.steps import shingles
from luthier.corpus.steps.shingles import hash_runs, hash_words, mix, offsets, spread

_TEXTS = st.lists(st.text(max_size=12), max_size=8)


def _words(text: str) -> list[int]:
    return hash_words([text]).hashes.tolist()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Hello, world!", 2),
        ("don't", 2),
        ("你好，世界", 4),
        ("用Python写3.5行", 6),
        ("ไทย", 3),
        ("한국어 문장", 2),
        ("", 0),
        (" \n\t", 0),
        ("👍👍", 1),
        ("x\uffffy", 2),
        ("\ud800", 1),
    ],
)
def test_words_are_counted(text: str, count: int):
    assert len(_words(text)) == count


def test_case_width_and_punctuation_make_no_difference():
    assert _words("Ｈello，WORLD") == _words("hello world!")
    assert _words("ﬁne café") == _words("FINE cafe\u0301")
    assert _words("hello world") != _words("world hello")
    assert _words("👍") != _words("👎")


def test_known_hashes_do_not_change():
    # Sketches are kept on disk: another hash would make them wrong without a sign of it.
    words = hash_words(["Hello 你"])
    assert words.hashes.tolist() == [9615761278361291188, 2912167736185754860]
    assert hash_runs(words, 2, keep_short=True).hashes.tolist() == [7100062269822900382]


@given(_TEXTS)
def test_batching_makes_no_difference(texts: list[str]):
    together = hash_words(texts)
    runs = hash_runs(together, 2, keep_short=True)
    for at, text in enumerate(texts):
        alone = hash_words([text])
        assert together.hashes[together.starts[at] : together.starts[at + 1]].tolist() == (
            alone.hashes.tolist()
        )
        assert runs.hashes[runs.starts[at] : runs.starts[at + 1]].tolist() == (
            hash_runs(alone, 2, keep_short=True).hashes.tolist()
        )


def test_pieces_of_a_batch_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    texts = ["one two", "", "三四", "five", "six seven eight"]
    whole = hash_words(texts)
    monkeypatch.setattr(shingles, "_CHARS_AT_ONCE", 4)
    pieces = hash_words(texts)
    assert np.array_equal(whole.hashes, pieces.hashes)
    assert np.array_equal(whole.starts, pieces.starts)


def test_runs_stay_within_their_text():
    words = hash_words(["a b c", "d", "", "e f"])
    assert hash_runs(words, 2, keep_short=False).counts.tolist() == [2, 0, 0, 1]
    kept = hash_runs(words, 2, keep_short=True)
    assert kept.counts.tolist() == [2, 1, 0, 1]
    assert kept.owners.tolist() == [0, 0, 1, 3]
    assert hash_runs(words, 1, keep_short=True).counts.tolist() == [3, 1, 0, 2]
    same = hash_runs(hash_words(["x a b", "a b y"]), 2, keep_short=False).hashes
    assert same[1] == same[2]


def test_short_texts_of_several_words_are_told_apart():
    kept = hash_runs(hash_words(["a", "a b", "b a", "a b"]), 3, keep_short=True)
    assert len(set(kept.hashes.tolist())) == 3


def test_places():
    assert offsets(np.array([2, 0, 1])).tolist() == [0, 2, 2, 3]
    assert spread(np.array([5, 9, 1]), np.array([2, 0, 3])).tolist() == [5, 6, 1, 2, 3]
    assert spread(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_mix_is_one_to_one_here():
    assert len(np.unique(mix(np.arange(10_000, dtype=np.uint64)))) == 10_000


def _plain_words(text: str) -> list[int]:
    """Hash words one character at a time: what the module says that it does."""
    base, salt = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
    found: list[int] = []
    was_letter, power = False, base
    for char in unicodedata.normalize("NFKC", text).casefold():
        is_alone = any(first <= ord(char) <= last for first, last in shingles._SPACELESS)
        is_word = unicodedata.category(char)[0] in "LMN"
        if is_word and (is_alone or not was_letter):
            found.append(0)
            power = base
        if is_word:
            found[-1] += (ord(char) ^ salt) * power
            power *= base
        was_letter = is_word and not is_alone
    values = np.array([value % 2**64 for value in found], np.uint64)
    return mix(values).tolist()


_MIXED = st.lists(
    st.text(st.sampled_from("aB z9_-\n，你好éﬁИ가の")) | st.text(max_size=12), max_size=6
)


@given(_MIXED)
def test_hashes_are_polynomials_of_characters(texts: list[str]):
    words = hash_words(texts)
    for at, text in enumerate(texts):
        if plain := _plain_words(text.replace("\uffff", " ")):
            assert words.hashes[words.starts[at] : words.starts[at + 1]].tolist() == plain


def test_a_word_of_a_text_longer_than_the_table_of_powers(monkeypatch: pytest.MonkeyPatch):
    texts = ["one two three four five", "六 seven"]
    whole = hash_words(texts).hashes.tolist()
    monkeypatch.setattr(shingles, "_CHARS_IN_TABLE", 4)
    assert hash_words(texts).hashes.tolist() == whole


@given(_TEXTS, st.integers(1, 4))
def test_runs_are_polynomials_of_words(texts: list[str], length: int):
    words = hash_words(texts)
    runs = hash_runs(words, length, keep_short=False)
    found: list[int] = []
    for begin, end in itertools.pairwise(words.starts.tolist()):
        hashes = words.hashes[begin:end].tolist()
        for at in range(len(hashes) - length + 1):
            value = 0
            for word in hashes[at : at + length]:
                value = value * 0x9E3779B97F4A7C15 + word
            found.append(value % 2**64)
    assert runs.hashes.tolist() == mix(np.array(found, np.uint64)).tolist()
