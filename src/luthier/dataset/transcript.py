"""A conversation written out as one text, and where its answers stand in that text.

In: messages and a chat template. Out: one or more transcripts, with places in characters; ids and
masks follow in `rendering.py`. An answer's place is never searched for in the text, for its words
may stand anywhere: it follows from what the template itself writes before and after it.

    prompt = template(messages before the answer, with generation prompt)
    upto   = template(messages up to and with the answer)
    text   = template(all messages)

    text    <user> How are you? <end> <assistant> Fine. <end> <user> ...
    prompt  -------------------------------------|
    upto    --------------------------------------------------|
                                                  ^ the answer ^

This holds as long as each is the beginning of the next. Some templates break it: those of
thinking models rewrite earlier answers once a new question follows. Such a conversation becomes
one transcript for each answer, in which the text before the answer is what the model is given
when it really answers that turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luthier.contracts.conversation import Conversation, Message
from luthier.dataset.templates import ChatTemplate, Rendering

Remark = Literal[
    "turn_by_turn", "prompt_differs", "marks_ignored", "answer_rewritten", "control_tokens"
]
"""Something about a transcript that the user should hear of once (`checks.py` says it)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Where one assistant turn stands, in characters of the text.

    Attributes:
        turn: Its index in the messages.
        start: Where the generation prompt ends: from here on the model writes.
        end: Where the turn ends, end token and trailing newline included.
        taught: The ranges inside it that its template's author marked as the model's own words;
            all of it where nothing is marked.
    """

    turn: int
    start: int
    end: int
    taught: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation, or its beginning, as one text.

    Attributes:
        conversation: Where it comes from.
        messages: The turns that the text holds.
        text: What the model sees, before it is tokenised.
        answers: The turns that are taught, in order.
        cut_turns: Indices of answers whose end was cut off; the model must not learn to stop there.
        remarks: What the user should hear of.
    """

    conversation: Conversation
    messages: tuple[Message, ...]
    text: str
    answers: tuple[Answer, ...]
    cut_turns: frozenset[int] = frozenset()
    remarks: frozenset[Remark] = frozenset()

    def turns(self) -> tuple[int, ...]:
        """Return the indices of the messages that are taught."""
        return tuple(answer.turn for answer in self.answers)


def transcribe(
    conversation: Conversation,
    messages: tuple[Message, ...],
    turns: Sequence[int],
    template: ChatTemplate,
) -> list[Transcript]:
    """Write a conversation out, as a whole if the template allows it, else answer by answer.

    Args:
        conversation: Where the messages come from.
        messages: The turns to write, a system prompt included.
        turns: Indices of the assistant turns whose places are wanted, in order; not empty.
        template: The run's chat template.

    Raises:
        DataError: The template refuses the messages.
    """
    whole = transcribe_whole(conversation, messages, turns, template)
    if whole is not None:
        return [whole]
    return transcribe_by_turn(conversation, messages, turns, template)


def renderings(
    messages: tuple[Message, ...], turns: Sequence[int], template: ChatTemplate
) -> list[Rendering]:
    """Return what `transcribe_whole` has rendered: many rows are rendered faster in one go."""
    wanted: list[Rendering] = [(messages, False, template.marks_answers)]
    for turn in turns:
        wanted.append((messages[:turn], True, False))
        if turn < len(messages) - 1:
            wanted.append((messages[: turn + 1], False, False))
    return wanted


def transcribe_whole(
    conversation: Conversation,
    messages: tuple[Message, ...],
    turns: Sequence[int],
    template: ChatTemplate,
) -> Transcript | None:
    """Write all messages as one text, or return None if an answer has no sure place in it.

    Raises:
        DataError: The template refuses the messages.
    """
    where = str(conversation.origin)
    text, marks = _render(messages, template, where)
    spans: list[tuple[int, int, int]] = []
    for turn in turns:
        prompt = template.render(messages[:turn], add_generation_prompt=True, where=where)
        is_last = turn == len(messages) - 1
        upto = text if is_last else template.render(messages[: turn + 1], where=where)
        if not (text.startswith(upto) and upto.startswith(prompt)):
            return None
        spans.append((turn, len(prompt), len(upto)))
    return _transcript(conversation, messages, text, spans, marks)


def transcribe_by_turn(
    conversation: Conversation,
    messages: tuple[Message, ...],
    turns: Sequence[int],
    template: ChatTemplate,
) -> list[Transcript]:
    """Write one text for each answer: the prompt that the model is given, and the answer.

    Where the template writes the answer differently from how its own generation prompt begins it
    (some open with `<think>`, which finished turns lack), the answer starts where the two part,
    but no later than its content does.

    Raises:
        DataError: The template refuses the messages.
    """
    where = str(conversation.origin)
    transcripts: list[Transcript] = []
    for turn in turns:
        told = messages[: turn + 1]
        text, marks = _render(told, template, where)
        prompt = template.render(told[:-1], add_generation_prompt=True, where=where)
        remarks: set[Remark] = {"turn_by_turn"} if len(turns) > 1 else set()
        start = len(prompt)
        if not text.startswith(prompt):
            start = min(_num_shared(text, prompt), _content_start(told, template, where))
            remarks.add("prompt_differs")
        written = _transcript(conversation, told, text, [(turn, start, len(text))], marks)
        transcripts.append(replace(written, remarks=written.remarks | remarks))
    return transcripts


def _render(
    messages: tuple[Message, ...], template: ChatTemplate, where: str
) -> tuple[str, list[tuple[int, int]] | None]:
    if template.marks_answers:
        return template.render_marked(messages, where=where)
    return template.render(messages, where=where), None


def _transcript(
    conversation: Conversation,
    messages: tuple[Message, ...],
    text: str,
    spans: Iterable[tuple[int, int, int]],
    marks: list[tuple[int, int]] | None,
) -> Transcript:
    answers: list[Answer] = []
    remarks: set[Remark] = set()
    for turn, start, end in spans:
        taught = tuple(_clipped(marks or (), start, end))
        if not taught:
            taught = ((start, end),)
            if marks is not None:
                remarks.add("marks_ignored")
        if messages[turn].content.strip() not in text[start:end]:
            remarks.add("answer_rewritten")
        answers.append(Answer(turn, start, end, taught))
    return Transcript(conversation, messages, text, tuple(answers), remarks=frozenset(remarks))


def _clipped(ranges: Iterable[tuple[int, int]], start: int, end: int) -> Iterable[tuple[int, int]]:
    """Keep of the author's marks what lies inside the answer: a role header is no answer."""
    for first, last in ranges:
        first, last = max(first, start), min(last, end)
        if first < last:
            yield first, last


def _content_start(messages: tuple[Message, ...], template: ChatTemplate, where: str) -> int:
    """Return where the last turn's own words begin: where two other contents first differ."""
    one, other = (
        template.render((*messages[:-1], replace(messages[-1], content=content)), where=where)
        for content in ("a", "b")
    )
    return _num_shared(one, other)


def _num_shared(one: str, other: str) -> int:
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
