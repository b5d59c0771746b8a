"""Answers to one prompt, too long with it: the prompt is cut for all of them alike.

In: rendered conversations that begin with the same messages. Out: the same, each under the length
limit, with one prompt; or a Rejection. How a message is cut is `truncation.py`'s matter.

A cut answer is another answer than the one that was judged, so prompts give way to answers further
than in supervised fine-tuning: until they have a tenth of the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from luthier.contracts.conversation import Rejection
from luthier.dataset.rendering import Rendered, Renderer
from luthier.dataset.tokens import Tokens
from luthier.dataset.truncation import (
    MAX_ATTEMPTS,
    Lengths,
    allot,
    lengths_of,
    level,
    render_within,
    too_long,
)

MIN_ANSWER_SHARE = 0.9
"""Share of the room that answers get before prompts, if they need it."""


@dataclass(slots=True)
class _Part:
    """One of the rows while it is cut."""

    row: Rendered
    contents: list[Tokens]
    lengths: Lengths
    room: int


def shorten_together(
    rows: Sequence[Rendered], renderer: Renderer, cutoff_len: int, min_answer_share: float
) -> list[Rendered] | Rejection:
    """Cut the messages of rows until each fits, those that all begin with alike.

    Args:
        rows: Rows that begin with the same messages; one or more are over `cutoff_len`.
        renderer: The renderer that they come from.
        cutoff_len: Longest row, in tokens.
        min_answer_share: Share of a row's room that its answers get before prompts, if they need it
            and it is more than `MIN_ANSWER_SHARE`.

    Returns:
        Rows of at most `cutoff_len` tokens, or a Rejection `too_long`.

    Raises:
        DataError: The template refuses the shortened messages.
    """
    longest = max(rows, key=lambda row: len(row.input_ids))
    share = max(min_answer_share, MIN_ANSWER_SHARE)
    parts = [_part(row, renderer, cutoff_len) for row in rows]
    num_fixed = max(cutoff_len - part.room for part in parts)
    for _ in range(MAX_ATTEMPTS):
        if any(part.room < len(part.lengths.answers) for part in parts):
            break
        allotments = _allot_alike(parts, share)
        if not all(map(_keeps_prompt, parts, allotments)):
            return too_long(longest, cutoff_len, "its answers leave no room for the prompt")
        shorter: list[Rendered] = []
        for part, allotted in zip(parts, allotments, strict=True):
            made = render_within(part.row, renderer, part.contents, allotted)
            if made is None:
                why = "its answer can't be cut: the template rewrites it"
                return too_long(longest, cutoff_len, why)
            shorter.append(made)
            part.room -= max(0, len(made.input_ids) - cutoff_len)
        if all(len(row.input_ids) <= cutoff_len for row in shorter):
            return shorter
    return too_long(longest, cutoff_len, f"{num_fixed} tokens of it are headers or can't be cut")


def _part(row: Rendered, renderer: Renderer, cutoff_len: int) -> _Part:
    contents = renderer.encoder.encode_batch([m.content for m in row.transcript.messages])
    lengths = lengths_of(row, contents)
    return _Part(row, contents, lengths, cutoff_len - (len(row.input_ids) - lengths.total()))


def _keeps_prompt(part: _Part, allotted: dict[int, int]) -> bool:
    """Whether anything is left of what was asked, if it can be cut at all."""
    prompts = part.lengths.prompts
    return not any(prompts.values()) or any(allotted[index] for index in prompts)


def _allot_alike(parts: Sequence[_Part], share: float) -> list[dict[int, int]]:
    """Share each row's room out among its messages; those that all share get the least of any."""
    allotted = [allot(part.lengths, part.room, share) for part in parts]
    turns = zip(*(part.row.transcript.messages for part in parts), strict=False)
    num_shared = sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, turns))
    for index in range(num_shared):
        least = min((each[index] for each in allotted if index in each), default=None)
        if least is not None:
            for each in allotted:
                each[index] = least
    # What the prompts of one row gave up, its answers may use.
    for part, each in zip(parts, allotted, strict=True):
        for_prompts = sum(each[index] for index in part.lengths.prompts)
        each.update(level(part.lengths.answers, part.room - for_prompts))
    return allotted
