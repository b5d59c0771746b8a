from __future__ import annotations

import pytest

from luthier.dataset.masking import taught_tokens, without_end
from luthier.dataset.tokens import Tokens
from luthier.dataset.transcript import Answer

END = frozenset({9})


def lay(*pieces: tuple[str, int]) -> tuple[str, Tokens]:
    """Lay pieces of text with their ids end to end."""
    text, spans = "", []
    for piece, _ in pieces:
        spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, Tokens([id_ for _, id_ in pieces], spans)


PROMPT = ("Q:", 1)
CASES = {
    "end token and newline": ([("yes", 2), ("<e>", 9), ("\n", 3)], (1, 3)),
    "two newlines": ([("yes", 2), ("<e>", 9), ("\n", 3), ("\n", 3)], (1, 3)),
    "end token last": ([("yes", 2), ("<e>", 9)], (1, 3)),
    "end token twice": ([("yes", 2), ("<e>", 9), ("<e>", 9)], (1, 4)),
    "end token quoted": ([("<e>", 9), ("yes", 2), ("<e>", 9), ("\n", 3)], (1, 4)),
    "no end token": ([("yes", 2), ("\n", 3)], (1, 3)),
    "no words": ([("<e>", 9), ("\n", 3)], (1, 2)),
    "nothing": ([], (1, 1)),
}


@pytest.mark.parametrize(("pieces", "expected"), CASES.values(), ids=CASES)
def test_an_answer_is_taught_up_to_its_end_token(pieces, expected):
    text, tokens = lay(PROMPT, *pieces)
    answer = Answer(1, 2, len(text), ((2, len(text)),))
    assert taught_tokens(text, tokens, answer, END) == [expected]


def test_marks_are_extended_by_the_end_token_right_behind_them():
    text, tokens = lay(PROMPT, ("yes", 2), ("<e>", 9), ("\n", 3))
    answer = Answer(1, 2, len(text), ((2, 5),))
    assert taught_tokens(text, tokens, answer, END) == [(1, 3)]


def test_marks_are_not_extended_into_the_next_turn():
    text, tokens = lay(PROMPT, ("yes", 2), ("<e>", 9), ("Q:", 1))
    answer = Answer(1, 2, 5, ((2, 5),))
    assert taught_tokens(text, tokens, answer, END) == [(1, 2)]


def test_what_stands_between_marks_is_not_taught():
    text, tokens = lay(PROMPT, ("think", 2), ("tool", 4), ("yes", 2), ("<e>", 9))
    answer = Answer(1, 2, len(text), ((2, 7), (11, 14)))
    assert taught_tokens(text, tokens, answer, END) == [(1, 2), (3, 5)]


def test_spaces_are_seen_where_offsets_leave_them_out_or_give_them_twice():
    # " " trimmed to nothing at its end; a made-up space with the offsets of the newline.
    text = "Q:yes<e> \n"
    tokens = Tokens([1, 2, 9, 5, 6, 3], [(0, 2), (2, 5), (5, 8), (9, 9), (9, 10), (9, 10)])
    answer = Answer(1, 2, len(text), ((2, len(text)),))
    assert taught_tokens(text, tokens, answer, END) == [(1, 3)]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("yes", 2), ("<e>", 9), ("\n", 3)], (1, 2)),
        ([("yes", 2), ("<e>", 9), ("\n", 3), ("<f>", 9)], (1, 2)),
        ([("yes", 2), ("\n", 3)], (1, 2)),
        ([("yes", 2)], (1, 2)),
        ([("<e>", 9)], (1, 1)),
    ],
)
def test_a_cut_answer_is_taught_without_all_that_follows_it(pieces, expected):
    text, tokens = lay(PROMPT, *pieces)
    assert without_end(text, tokens, 1, len(tokens.ids), END) == expected
