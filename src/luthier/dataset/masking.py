"""Which tokens an answer teaches: its own, and the token that ends it.

In: the tokens of a row, and an answer's place in its text. Out: ranges of tokens.
"""

from __future__ import annotations

from luthier.dataset.tokens import Tokens
from luthier.dataset.transcript import Answer


def taught_tokens(
    text: str, tokens: Tokens, answer: Answer, control_ids: frozenset[int]
) -> list[tuple[int, int]]:
    """Return the ranges of tokens that one answer teaches, its end token included.

    The end token is the last control token of the turn with nothing but white space behind it. A
    template whose author's marks stop right before it is extended by it (huggingface/trl#5988):
    a model that isn't taught its end token never stops.

    Args:
        text: The text of the row.
        tokens: Its tokens.
        answer: Where the answer stands.
        control_ids: Ids of the control tokens.
    """
    spans = [(tokens.index(start), tokens.index(end)) for start, end in answer.taught]
    first, last = spans.pop()
    turn_end = tokens.index(answer.end)
    body = _before_space(text, tokens, first, last)
    if body > first and tokens.ids[body - 1] in control_ids:
        last = body
    elif last < turn_end and tokens.ids[last] in control_ids:
        last += 1
    return [*spans, (first, last)]


def without_end(
    text: str, tokens: Tokens, first: int, last: int, control_ids: frozenset[int]
) -> tuple[int, int]:
    """Take off a range of tokens all that the template writes behind an answer.

    Args:
        text: The text of the row.
        tokens: Its tokens.
        first: First token of the range.
        last: First token behind the range.
        control_ids: Ids of the control tokens.

    Returns:
        The range without the end tokens and white space at its end.
    """
    while last > first:
        body = _before_space(text, tokens, first, last)
        if body > first and tokens.ids[body - 1] in control_ids:
            body -= 1
        if body == last:
            break
        last = body
    return first, last


def _before_space(text: str, tokens: Tokens, first: int, last: int) -> int:
    """Return where the white space starts that a range of tokens ends with."""
    while last > first:
        # Some offsets leave a leading space out, and others give a made-up space that of its
        # neighbour: the wider of both readings holds the characters.
        start = min(tokens.start(last - 1), tokens.end(last - 2) if last > 1 else 0)
        if not text[start : tokens.end(last - 1)].isspace():
            break
        last -= 1
    return last
