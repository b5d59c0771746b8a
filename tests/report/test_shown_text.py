"""Texts made visible, cut and compared."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.report.shown_text import (
    MOST_CHARS,
    Piece,
    differences,
    one_line,
    shortened,
    visible,
)


def marks(pieces: list[Piece]) -> list[str]:
    return [piece.text for piece in pieces if piece.kind == "differs"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[0m\x00\x7f\r", "␛[0m␀␡␍"),
        ("\u202eabc\u2066", "⟨U+202E⟩abc⟨U+2066⟩"),
        ("\u200b\ufeff\u00ad\x85", "⟨U+200B⟩⟨U+FEFF⟩⟨U+00AD⟩⟨U+0085⟩"),
        ("\ud800\uffff\U0001fffe", "⟨U+D800⟩⟨U+FFFF⟩⟨U+1FFFE⟩"),
        ("👩\u200d💻 中文 é", "👩\u200d💻 中文 é"),
        ("\u2028\u2029", "⟨U+2028⟩⟨U+2029⟩"),
    ],
)
def test_what_has_no_shape_gets_one(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text(st.characters(codec=None)))
def test_what_is_visible_can_be_written_and_holds_no_control(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    odd = [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
    assert set(odd) <= set("\n\t\u200c\u200d")
    assert visible(shown) == shown


def test_one_line() -> None:
    assert one_line(" a\n b\t c ", 10) == "a b c"
    assert one_line("a" * 12, 10) == "a" * 9 + "…"


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert shortened("abc") == [Piece("same", "abc", 3)]
    assert shortened("") == [Piece("same", "", 0)]
    head, gap = shortened("a" * (MOST_CHARS + 7))
    assert len(head.text) == MOST_CHARS
    assert gap == Piece("gap", "", 7)


def test_words_are_compared_whole_and_neighbours_share_a_mark() -> None:
    left, right = differences("Name a warm red colour now", "Name a cold colour right now")
    assert marks(left) == ["warm red"]
    assert marks(right) == ["cold", "right"]


def test_chinese_is_compared_by_character() -> None:
    left, right = differences("请在24小时内答复abc中文", "请在48小时内回复abc中文")
    assert marks(left) == ["24", "答"]
    assert marks(right) == ["48", "回"]


def test_texts_that_share_little_have_no_marks() -> None:
    left, right = differences("one two three", "vier fünf sechs")
    assert marks(left) == marks(right) == []
    assert left == [Piece("same", "one two three", 13)]


@pytest.mark.parametrize("num_words", [80, 400, 4000])
def test_a_difference_is_shown_however_late_it_is(num_words: int) -> None:
    start = "many words that are the same " * num_words
    left, right = differences(start + "end A of it", start + "end B of it")
    assert marks(left) == ["A"]
    assert marks(right) == ["B"]
    assert sum(piece.kind == "gap" for piece in left) == 1
    assert sum(len(piece.text) for piece in left) < 600


def test_an_early_difference_leaves_the_rest_out() -> None:
    rest = " many words that are the same" * 100
    left, _ = differences("A" + rest, "B" + rest)
    assert left[0] == Piece("differs", "A", 1)
    assert left[-1].kind == "gap"


@given(st.text("ab 中\n", max_size=700), st.text("ab 中\n", max_size=700))
def test_pieces_account_for_every_character(left: str, right: str) -> None:
    for text, pieces in zip((left, right), differences(left, right), strict=True):
        assert sum(piece.num_chars for piece in pieces) == len(text)
        at = 0
        for piece in pieces:
            if piece.kind != "gap":
                assert text[at : at + piece.num_chars] == piece.text
            at += piece.num_chars


def test_repetitive_texts_are_compared_in_time() -> None:
    started_s = time.perf_counter()
    left, _ = differences(("的" * 50 + "x") * 60, ("的" * 49 + "y") * 60)
    assert sum(piece.num_chars for piece in left) == 51 * 60
    # Six seconds, where each of the characters is compared with each.
    assert time.perf_counter() - started_s < 3


def test_equal_texts_have_no_marks() -> None:
    assert marks(differences("a b", "a b")[0]) == []
    assert differences("", "") == ([], [])
