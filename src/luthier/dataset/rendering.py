"""Conversations to rows: token ids, and which of them are taught.

In: conversations. Out: rows of ids with a loss weight for each token. Read `transcript.py` first:
it says where the answers stand. Three promises are kept here, and tested with random
conversations:

1. The ids before an answer are exactly those that the model is given when it answers that turn in
   a chat (`prompt_ids`). A token that stands across the border between prompt and answer can't
   exist at inference; then the two sides are tokenised apart.
2. Taught are the answer's tokens and its end token, and nothing else. The newline that some
   templates write behind the end token is not: the model has stopped by then.
3. No mask comes from comparing ids with pad, bos or eos, nor from finding words in the text. A
   question that quotes `<|im_end|>` or a header is still a question.

Control tokens spelled out in a message are tokenised as control tokens, for that is what
transformers and vLLM do at inference; rows that hold some are counted, and `luthier inspect`
warns of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from luthier.contracts.conversation import Conversation, Message, Origin, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError
from luthier.dataset.masking import taught_tokens, without_end
from luthier.dataset.templates import PROBE, ChatTemplate
from luthier.dataset.tokens import Encoder, Tokens
from luthier.dataset.transcript import (
    Answer,
    Transcript,
    renderings,
    transcribe,
    transcribe_by_turn,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row. All lists have the same length L.

    Attributes:
        transcript: The text that the row comes from.
        tokens: The tokens of the text, BOS included.
        loss_weights: Weight of each token in the loss; 0 for tokens that are not taught.
        answer_starts: For each answer its first token; all before it is the prompt.
    """

    transcript: Transcript
    tokens: Tokens
    loss_weights: list[float]
    answer_starts: tuple[int, ...]

    @property
    def input_ids(self) -> list[int]:
        """The token ids."""
        return self.tokens.ids

    @property
    def char_ends(self) -> list[int]:
        """Where each token ends in the text."""
        return self.tokens.ends()

    @property
    def supervised(self) -> list[bool]:
        """Whether each token is taught."""
        return [weight > 0 for weight in self.loss_weights]

    @property
    def labels(self) -> list[int]:
        """The ids where taught, else -100; aligned with `input_ids`, not shifted."""
        pairs = zip(self.input_ids, self.loss_weights, strict=True)
        return [id_ if weight > 0 else IGNORE_INDEX for id_, weight in pairs]

    def char_spans(self) -> list[tuple[int, int]]:
        """Return the part of the text that each token stands for, for display."""
        ends = self.char_ends
        return list(zip([0, *ends[:-1]], ends, strict=True))


class Renderer:
    """Renders conversations with one tokenizer, template and choice of mask.

    Args:
        tokenizer: With its chat template set (`templates.resolve_template`). It must not change
            while the renderer is in use.
        train_on_prompt: Teach every token but the first.
        mask_history: Teach only the last answer.
        default_system: System prompt for conversations that have none.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        train_on_prompt: bool = False,
        mask_history: bool = False,
        default_system: str | None = None,
    ) -> None:
        self.template = ChatTemplate.of(tokenizer)
        self.encoder = Encoder(tokenizer)
        self.train_on_prompt = train_on_prompt
        self.mask_history = mask_history
        self.default_system = default_system
        spellings = tokenizer.convert_ids_to_tokens(sorted(self.encoder.control_ids))
        self._control = re.compile("|".join(map(re.escape, spellings)) or "(?!)")

    def render(self, conversation: Conversation) -> list[Rendered]:
        """Return a conversation's rows: one, or one for each answer (see `transcript.py`).

        Raises:
            DataError: The template refuses the conversation, or it can't be tokenised so that
                training and inference agree.
        """
        rows: list[Rendered] = []
        for group in self.encode(self.transcripts(conversation)):
            for row in group:
                if isinstance(row, Rejection):
                    raise DataError(row.detail, where=str(row.origin))
                rows.append(row)
        return rows

    def transcripts(self, conversation: Conversation) -> list[Transcript]:
        """Write a conversation out; an empty list if nothing in it is to be taught.

        Raises:
            DataError: The template refuses it, or its text is not valid Unicode.
        """
        messages, turns = self._told(conversation)
        return self.transcribe(conversation, messages, turns) if turns else []

    def foresee(self, conversations: Iterable[Conversation]) -> None:
        """Render in one go what `transcripts` will need for each of these conversations."""
        told = map(self._told, conversations)
        self.template.foresee(
            rendering
            for messages, turns in told
            if turns
            for rendering in renderings(messages, turns, self.template)
        )

    def _told(self, conversation: Conversation) -> tuple[tuple[Message, ...], list[int]]:
        """Return the messages that are written out, and which of their turns are located."""
        messages = self.with_system(conversation.messages)
        turns = self._turns(conversation, messages)
        if turns and not self.train_on_prompt:
            messages = messages[: turns[-1] + 1]  # what follows the last answer teaches nothing
        return messages, turns

    def transcribe(
        self, conversation: Conversation, messages: tuple[Message, ...], turns: Sequence[int]
    ) -> list[Transcript]:
        """Write messages out, with remarks on what they hold.

        Raises:
            DataError: As `transcripts`.
        """
        transcripts = transcribe(conversation, messages, turns, self.template)
        for transcript in transcripts:
            self.encoder.check_text(transcript.text, str(conversation.origin))
        if any(self._control.search(message.content) for message in messages):
            return [
                replace(transcript, remarks=transcript.remarks | {"control_tokens"})
                for transcript in transcripts
            ]
        return transcripts

    def encode(self, transcripts: Sequence[Transcript]) -> list[list[Rendered | Rejection]]:
        """Tokenise transcripts together and mask them.

        Returns:
            For each transcript its rows: one, unless answers and prompts grow together in
            tokenising, which takes one row for each answer. A Rejection stands for a row that
            can't be tokenised as at inference.
        """
        batch = self.encoder.encode_batch([transcript.text for transcript in transcripts])
        return [
            self._rows(transcript, tokens)
            for transcript, tokens in zip(transcripts, batch, strict=True)
        ]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that ask the model for its answer to these messages.

        Raises:
            DataError: The template refuses the messages.
        """
        told = self.with_system(tuple(messages))
        text = self.template.render(told, add_generation_prompt=True)
        self.encoder.check_text(text, "prompt")
        return self.encoder.encode(text).ids

    def with_system(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Put the default system prompt before messages that have none."""
        has_system = any(message.role == "system" for message in messages)
        if self.default_system is None or has_system:
            return messages
        return (Message("system", self.default_system), *messages)

    def _turns(self, conversation: Conversation, messages: tuple[Message, ...]) -> list[int]:
        """Return which turns are located: those taught, or all where the prompt is taught too."""
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        if self.mask_history:
            answers = answers[-1:]
        taught = [i for i in answers if messages[i].weight * conversation.weight > 0]
        return answers if taught and self.train_on_prompt else taught

    def _rows(self, transcript: Transcript, tokens: Tokens) -> list[Rendered | Rejection]:
        """Mask one transcript, after its borders between prompt and answer are made exact."""
        text, answers = transcript.text, transcript.answers
        for answer in answers:
            if self.encoder.border_holds(text, tokens, answer.start):
                continue
            if answer is not answers[-1]:
                return self._rows_by_turn(transcript)
            joined = self.encoder.encode_in_two(text, tokens, answer.start)
            if joined is None:
                return [_inexact(transcript, answer)]
            tokens = joined
        return [self._mask(transcript, tokens)]

    def _rows_by_turn(self, transcript: Transcript) -> list[Rendered | Rejection]:
        """Give each answer its own row, in which only the last border has to be made exact."""
        parts = transcribe_by_turn(
            transcript.conversation, transcript.messages, transcript.turns(), self.template
        )
        rows: list[Rendered | Rejection] = []
        for part in parts:
            part = replace(
                part,
                cut_turns=transcript.cut_turns & {*part.turns()},
                remarks=part.remarks | transcript.remarks,
            )
            rows += self._rows(part, self.encoder.encode(part.text))
        return rows

    def _mask(self, transcript: Transcript, tokens: Tokens) -> Rendered:
        row_weight = transcript.conversation.weight
        weights = [row_weight if self.train_on_prompt else 0.0] * len(tokens.ids)
        for answer in transcript.answers:
            weight = row_weight * transcript.messages[answer.turn].weight
            taught = taught_tokens(transcript.text, tokens, answer, self.encoder.control_ids)
            if self.train_on_prompt:
                taught = [(tokens.index(answer.start), tokens.index(answer.end))]
            if answer.turn in transcript.cut_turns:
                taught = [
                    without_end(transcript.text, tokens, *span, self.encoder.control_ids)
                    for span in taught
                ]
                # The end of a cut answer is no end: it isn't taught even as a part of a prompt.
                start, end = tokens.index(answer.start), tokens.index(answer.end)
                weights[start:end] = [0.0] * (end - start)
            for first, last in taught:
                weights[first:last] = [weight] * (last - first)
        weights[:1] = [0.0] * len(weights[:1])  # no position predicts the first token
        starts = tuple(tokens.index(answer.start) for answer in transcript.answers)
        return Rendered(transcript, tokens, weights, starts)


def _inexact(transcript: Transcript, answer: Answer) -> Rejection:
    around = transcript.text[max(0, answer.start - 10) : answer.start + 10]
    return Rejection(
        origin=transcript.conversation.origin,
        reason="inexact_border",
        detail=f"the answer can't be tokenised apart from its prompt (at {around!r}), "
        "so training would show the model other ids than inference does",
        content=transcript.messages[answer.turn].content,
    )


def render(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerFast,
    *,
    train_on_prompt: bool = False,
    mask_history: bool = False,
    default_system: str | None = None,
) -> list[Rendered]:
    """Render one conversation; for many, keep a `Renderer`.

    Raises:
        DataError: As `Renderer.render`.
    """
    renderer = Renderer(
        tokenizer,
        train_on_prompt=train_on_prompt,
        mask_history=mask_history,
        default_system=default_system,
    )
    return renderer.render(conversation)


def render_prompt(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerFast,
    default_system: str | None = None,
) -> list[int]:
    """Return the ids that chat and generate feed the model; training's prompts are the same ids.

    Args:
        messages: The turns so far, the last one usually the user's.
        tokenizer: The run's tokenizer, with the template that was trained.
        default_system: The system prompt that training put before conversations without one.

    Raises:
        DataError: The template refuses the messages.
    """
    return Renderer(tokenizer, default_system=default_system).prompt_ids(messages)


def stop_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids that end an answer: what the template ends its turns with, and eos.

    Raises:
        DataError: The template can't render a question and an answer.
    """
    renderer = Renderer(tokenizer)
    (row,) = renderer.render(Conversation(PROBE, Origin("stop_token_ids", 0)))
    taught = [id_ for id_ in row.labels if id_ != IGNORE_INDEX]
    ends = [id_ for id_ in taught[-1:] if id_ in renderer.encoder.control_ids]
    eos = tokenizer.eos_token_id
    return [*ends, eos] if isinstance(eos, int) and eos not in ends else ends
