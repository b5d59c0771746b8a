"""Rows over the length limit: shortened inside their messages, or given up.

In: a rendered row that is too long. Out: the same conversation with shorter messages, rendered
again by the template, so that its headers and end tokens stand whole; or a Rejection. Cutting the
ids instead would take the assistant header or the whole answer off, and teach nothing or nonsense.

Prompts lose their middle: the start says what is asked, the end is what was asked last. Answers
lose their end, and then their end token is not taught: a model that is shown answers that stop in
the middle of a sentence learns to stop there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthier.contracts.conversation import Message, Rejection
from luthier.dataset.rendering import Rendered, Renderer
from luthier.dataset.tokens import Tokens

GAP = " ... "
"""Stands where the middle of a prompt was taken out."""

MAX_ATTEMPTS = 24
"""Tokens of a cut text can't be foretold exactly, so cutting is tried with less room each time."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each message's content that can be cut: prompts and taught answers apart."""

    prompts: dict[int, int]
    answers: dict[int, int]

    def total(self) -> int:
        """Return the tokens of all of them."""
        return sum(self.prompts.values()) + sum(self.answers.values())


def shorten(
    row: Rendered, renderer: Renderer, cutoff_len: int, min_answer_share: float
) -> Rendered | Rejection:
    """Cut a row's messages until it fits.

    Args:
        row: A row of more than `cutoff_len` tokens.
        renderer: The renderer that it comes from.
        cutoff_len: Longest row, in tokens.
        min_answer_share: Share of the room that answers get before prompts, if they need it.

    Returns:
        A row of at most `cutoff_len` tokens, or a Rejection `too_long`.

    Raises:
        DataError: The template refuses the shortened messages.
    """
    transcript = row.transcript
    contents = renderer.encoder.encode_batch([m.content for m in transcript.messages])
    lengths = lengths_of(row, contents)
    num_fixed = len(row.input_ids) - lengths.total()
    room = cutoff_len - num_fixed
    for _ in range(MAX_ATTEMPTS):
        if room < len(lengths.answers):
            break
        shorter = render_within(row, renderer, contents, allot(lengths, room, min_answer_share))
        if shorter is None:
            return too_long(row, cutoff_len, "its answer can't be cut: the template rewrites it")
        excess = len(shorter.input_ids) - cutoff_len
        if excess <= 0:
            return shorter
        room -= excess
    return too_long(row, cutoff_len, f"{num_fixed} tokens of it are headers or can't be cut")


def allot(lengths: Lengths, room: int, min_answer_share: float) -> dict[int, int]:
    """Share the room out among messages.

    Answers get their share if they need it, prompts what they need of the rest, and answers what
    then is left over. Among prompts, and among answers, the longest are cut first.

    Args:
        lengths: Tokens that each message would take.
        room: Tokens that all of them may take together.
        min_answer_share: Share of the room that is the answers' if they need it.

    Returns:
        Message index to tokens, never more than it would take.
    """
    need_answers = sum(lengths.answers.values())
    need_prompts = sum(lengths.prompts.values())
    for_answers = max(math.ceil(min_answer_share * room), room - need_prompts)
    for_answers = min(for_answers, need_answers)
    return {
        **level(lengths.prompts, room - for_answers),
        **level(lengths.answers, for_answers),
    }


def level(lengths: dict[int, int], room: int) -> dict[int, int]:
    """Cut the longest down to one common length, as water finds its level.

    Args:
        lengths: Tokens by message index.
        room: Tokens that all may take together.
    """
    allotted: dict[int, int] = {}
    by_length = sorted(lengths, key=lambda i: lengths[i])
    for position, index in enumerate(by_length):
        fair = room // (len(by_length) - position)
        allotted[index] = min(lengths[index], fair)
        room -= allotted[index]
    return allotted


def lengths_of(row: Rendered, contents: Sequence[Tokens]) -> Lengths:
    """Count what can be cut: a message that the template rewrites can't, for it isn't all there.

    Args:
        row: The row.
        contents: The tokens of each message's content.
    """
    transcript = row.transcript
    taught = set(transcript.turns())
    lengths = Lengths({}, {})
    for index, (message, tokens) in enumerate(zip(transcript.messages, contents, strict=True)):
        if message.content.strip() in transcript.text:
            side = lengths.answers if index in taught else lengths.prompts
            side[index] = len(tokens.ids)
    return lengths


def render_within(
    row: Rendered, renderer: Renderer, contents: Sequence[Tokens], allotted: dict[int, int]
) -> Rendered | None:
    """Render with each message cut to its tokens; None if the answers don't survive it whole.

    Args:
        row: The row as it is.
        renderer: The renderer that it comes from.
        contents: The tokens of each message's content.
        allotted: Tokens that messages may take, by index; others stay whole.

    Raises:
        DataError: The template refuses the shortened messages.
    """
    old = row.transcript
    taught = set(old.turns())
    messages: list[Message] = []
    cut_turns: set[int] = set(old.cut_turns)
    for index, message in enumerate(old.messages):
        limit = allotted.get(index, len(contents[index].ids))
        if limit >= len(contents[index].ids):
            messages.append(message)
        elif index in taught:
            content = _head(message.content, contents[index], limit)
            messages.append(replace(message, content=content))
            cut_turns.add(index)
        else:
            content = _ends(message.content, contents[index], limit, renderer)
            messages.append(replace(message, content=content))
    transcripts = renderer.transcribe(old.conversation, tuple(messages), old.turns())
    if len(transcripts) != 1:
        return None
    new = replace(
        transcripts[0],
        cut_turns=frozenset(cut_turns),
        remarks=transcripts[0].remarks | old.remarks,
    )
    ((shorter, *others),) = renderer.encode([new])
    if others or isinstance(shorter, Rejection) or not _is_beginning(shorter, row):
        return None
    return shorter


def _is_beginning(shorter: Rendered, row: Rendered) -> bool:
    """See that each taught answer reads as the old one does, as far as it goes.

    Templates of thinking models look for `</think>` in an answer; cut before it, the same text
    would be written as an answer without a thought.
    """
    pairs = zip(shorter.transcript.answers, row.transcript.answers, strict=True)
    for start, (new, old) in zip(shorter.answer_starts, pairs, strict=True):
        end = start
        while end < len(shorter.input_ids) and shorter.tokens.end(end) <= new.end:
            end += 1
        while end > start and shorter.loss_weights[end - 1] == 0:
            end -= 1
        taught_to = shorter.tokens.end(end - 1) if end > start else new.start
        words = shorter.transcript.text[new.start : taught_to]
        if not row.transcript.text.startswith(words, old.start):
            return False
    return True


def _head(content: str, tokens: Tokens, limit: int) -> str:
    return content[: tokens.end(limit - 1)] if limit else ""


def _ends(content: str, tokens: Tokens, limit: int, renderer: Renderer) -> str:
    """Keep the head and the tail of a content."""
    room = limit - len(renderer.encoder.ids(GAP))
    if room < 2:
        return _head(content, tokens, limit)
    num_head = (room + 1) // 2
    tail_start = tokens.end(len(tokens.ids) - (room - num_head) - 1)
    return content[: tokens.end(num_head - 1)] + GAP + content[tail_start:]


def too_long(row: Rendered, cutoff_len: int, why: str) -> Rejection:
    """Return the account of a row that can't be brought under the limit."""
    text = row.transcript.text
    return Rejection(
        origin=row.transcript.conversation.origin,
        reason="too_long",
        detail=f"{len(row.input_ids)} tokens, cutoff_len is {cutoff_len}: {why}",
        content=text if len(text) <= 2000 else text[:1000] + GAP + text[-1000:],
    )
