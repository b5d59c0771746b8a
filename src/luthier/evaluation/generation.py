"""A model and token ids in, answers out: many prompts in even batches, or one as it is written.

The decoding itself is transformers' `generate`, with a KV cache. What it is given leaves nothing to
a model's own generation settings. The model goes back to the mode it was in, and torch's random
state to where it was, so that a look at a model in training does not change the training.

Shapes: B prompts of a batch, T tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from transformers import GenerationConfig, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from luthier.contracts.training import StopAskedError
from luthier.core.errors import DataError
from luthier.core.seeds import derive_seed
from luthier.evaluation.settings import GenerationSettings
from luthier.evaluation.text_pieces import TextPieces, decode_answer, without_torn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one prompt.

    Attributes:
        text: The answer, without special tokens.
        num_tokens: How many tokens it is; the one that stopped it is not counted.
        finish_reason: `stop` at a stop token, `length` where the room was used up, `interrupted`
            by Ctrl-C.
    """

    text: str
    num_tokens: int
    finish_reason: FinishReason


def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    stop_token_ids: Sequence[int],
    on_answer: Callable[[int, Answer], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """Answer prompts in batches of like length.

    Args:
        model: A causal language model, or a peft model around one.
        tokenizer: Turns the answers' ids into text.
        prompts: Token ids of each prompt, rendered up to where the answer begins.
        settings: How to draw tokens.
        stop_token_ids: Any of these ends an answer.
        on_answer: Told each answer as it comes, with the index of its prompt.
        is_stopped: Asked between tokens: whether to give up.

    Returns:
        One answer a prompt, in the order of the prompts.

    Raises:
        DataError: A prompt leaves no room for an answer in the model's context.
        StopAskedError: It was given up.
    """
    answers: dict[int, Answer] = {}
    drawn = _written(model, tokenizer, prompts, settings, stop_token_ids, is_stopped)
    with closing(drawn) as written:
        for index, row in written:
            answers[index] = read_answer(tokenizer, row, stop_token_ids)
            if on_answer is not None:
                on_answer(index, answers[index])
    return [answers[index] for index in range(len(prompts))]


def generate_tokens(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    stop_token_ids: Sequence[int],
) -> list[list[int]]:
    """Answer prompts as `generate_answers` does, and return the tokens that were drawn.

    Returns:
        Token ids of one answer a prompt, in the order of the prompts. The token that stopped an
        answer is its last one; an answer that ends with another used up its room.

    Raises:
        DataError: As `generate_answers`.
    """
    drawn: dict[int, list[int]] = {}
    for index, row in _written(model, tokenizer, prompts, settings, stop_token_ids):
        stop = _first_stop(row, stop_token_ids)
        drawn[index] = row if stop is None else row[: stop + 1]
    return [drawn[index] for index in range(len(prompts))]


def _written(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    stop_token_ids: Sequence[int],
    is_stopped: Callable[[], bool] = lambda: False,
) -> Generator[tuple[int, list[int]]]:
    """Yield what is written behind each prompt, padding included, with the prompt's index."""
    rooms = [
        room_for_answer(model, len(prompt), settings.max_new_tokens, f"prompt {index + 1}")
        for index, prompt in enumerate(prompts)
    ]
    with _answering(model, settings) as generate:
        for number, batch in enumerate(_batches([len(p) for p in prompts], rooms, settings)):
            torch.manual_seed(derive_seed(settings.seed, "generate", number))
            config = _config(settings, rooms[batch[0]], stop_token_ids, tokenizer)
            ids_BT, mask_BT = _pad_left([prompts[index] for index in batch], config, model.device)
            written = generate(
                ids_BT,
                attention_mask=mask_BT,
                generation_config=config,
                stopping_criteria=[_GiveUp(is_stopped)],
            )
            yield from zip(batch, written[:, ids_BT.shape[1] :].tolist(), strict=True)


def stream_answer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    settings: GenerationSettings,
    stop_token_ids: Sequence[int],
    on_text: Callable[[str], None],
) -> Answer:
    """Answer one prompt and hand on the text as it is written.

    Ctrl-C ends the answer and not the program: what has been written so far is the answer.

    Args:
        model: A causal language model, or a peft model around one.
        tokenizer: Turns the answer's ids into text.
        prompt: Token ids, rendered up to where the answer begins.
        settings: How to draw tokens; `batch_size` plays no part.
        stop_token_ids: Any of these ends the answer.
        on_text: Told each piece of text; joined, the pieces are the answer's text.

    Returns:
        The whole answer.

    Raises:
        DataError: The prompt leaves no room for an answer in the model's context.
    """
    room = room_for_answer(model, len(prompt), settings.max_new_tokens)
    config = _config(settings, room, stop_token_ids, tokenizer)
    stream = _Stream(TextPieces(tokenizer), frozenset(stop_token_ids), on_text)
    interrupted = False
    with _answering(model, settings) as generate:
        torch.manual_seed(derive_seed(settings.seed, "generate", 0))
        ids_BT, mask_BT = _pad_left([prompt], config, model.device)
        try:
            generate(ids_BT, attention_mask=mask_BT, generation_config=config, streamer=stream)
        except KeyboardInterrupt:
            interrupted = True  # What was held back is half a character: it is left out.
    finish: FinishReason = "stop" if stream.stopped else "length"
    return Answer(stream.text, stream.num_tokens, "interrupted" if interrupted else finish)


def room_for_answer(
    model: Any, num_prompt_tokens: int, max_new_tokens: int, where: str | None = None
) -> int:
    """Return how many tokens an answer may have: `max_new_tokens`, or what the context leaves.

    Args:
        model: The model; one whose config names no context length has room without end.
        num_prompt_tokens: Length of the prompt.
        max_new_tokens: The longest answer that is wanted.
        where: Which prompt it is, for the message.

    Raises:
        DataError: The prompt fills the context; the message names both lengths.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return max_new_tokens
    if num_prompt_tokens >= context:
        raise DataError(
            f"the prompt has {num_prompt_tokens} tokens, and the model's context is {context}: "
            "no room for an answer",
            where=where,
            mend="Shorten the prompt; in a chat, /new forgets the earlier turns.",
        )
    return min(max_new_tokens, context - num_prompt_tokens)


def _batches(
    lengths: Sequence[int], rooms: Sequence[int], settings: GenerationSettings
) -> Iterator[list[int]]:
    """Yield the indices of each batch, longest prompts first.

    Prompts near the end of the context have less room for an answer, each its own: they share a
    batch only with prompts of the same room, so that no answer depends on its neighbours.
    """
    longest_first = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for _, group in groupby(longest_first, key=lambda index: rooms[index]):
        indices = list(group)
        for start in range(0, len(indices), settings.batch_size):
            yield indices[start : start + settings.batch_size]


def _config(
    settings: GenerationSettings,
    room: int,
    stop_token_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> GenerationConfig:
    pad = tokenizer.pad_token_id
    if pad is None:
        # Padding is masked on the way in and cut off on the way out: any id will do.
        pad = stop_token_ids[0] if stop_token_ids else 0
    sampling: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        # transformers takes the 50 likeliest tokens unless told otherwise.
        sampling = {"do_sample": True, "top_k": 0, "top_p": settings.top_p}
        sampling["temperature"] = settings.temperature
    return GenerationConfig(
        max_new_tokens=room,
        eos_token_id=list(stop_token_ids) or None,
        pad_token_id=pad,
        use_cache=True,
        **sampling,
    )


def _pad_left(
    prompts: Sequence[Sequence[int]], config: GenerationConfig, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask: the prompts end together, where the answers begin."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[config.pad_token_id] * (width - len(p)) + list(p) for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@contextmanager
def _answering(model: Any, settings: GenerationSettings) -> Generator[Callable[..., Any]]:
    """Yield the model's `generate`, in evaluation mode and without settings of its own."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    was_training, own_config = model.training, base.generation_config
    cuda = [model.device.index or 0] if model.device.type == "cuda" else []
    model.eval()
    # transformers fills what a call leaves open from here, such as a repetition penalty.
    base.generation_config = GenerationConfig()
    try:
        with torch.random.fork_rng(cuda), torch.inference_mode():
            yield base.generate
    finally:
        base.generation_config = own_config
        model.train(was_training)


def read_answer(
    tokenizer: PreTrainedTokenizerBase, row: Sequence[int], stop_token_ids: Sequence[int]
) -> Answer:
    """Return the answer that some tokens are, up to the first that stops it.

    Args:
        tokenizer: Turns ids into text.
        row: What was written behind a prompt.
        stop_token_ids: Any of these ends an answer.
    """
    stop = _first_stop(row, stop_token_ids)
    kept = list(row if stop is None else row[:stop])
    text = decode_answer(tokenizer, kept)
    if stop is None:
        return Answer(without_torn_end(text), len(kept), "length")
    return Answer(text, len(kept), "stop")


def _first_stop(row: Sequence[int], stop_token_ids: Sequence[int]) -> int | None:
    return next((place for place, token in enumerate(row) if token in stop_token_ids), None)


class _GiveUp(StoppingCriteria):
    """Asked by transformers after each token; ends no answer, but perhaps all of them."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped

    def __call__(
        self, input_ids: torch.LongTensor, scores: tuple[torch.Tensor] | None, **kwargs: Any
    ) -> torch.BoolTensor:
        """Return that no answer is at its end.

        Raises:
            StopAskedError: Somebody wants to stop.
        """
        if self._is_stopped():
            raise StopAskedError
        return cast(torch.BoolTensor, input_ids.new_zeros(len(input_ids), dtype=torch.bool))


class _Stream(BaseStreamer):
    """What transformers hands each new token to."""

    def __init__(
        self, pieces: TextPieces, stop: frozenset[int], on_text: Callable[[str], None]
    ) -> None:
        self._pieces = pieces
        self._stop = stop
        self._on_text = on_text
        self._is_prompt = True
        self.text = ""
        self.num_tokens = 0
        self.stopped = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt (the first call) or one new token."""
        if self._is_prompt:
            self._is_prompt = False
            return
        token = int(value.item())
        if token in self._stop:
            self.stopped = True
            return
        self.num_tokens += 1
        self._show(self._pieces.add(token))

    def end(self) -> None:
        """Hand on what was held back. Called by transformers at the end of an answer."""
        # An answer that was cut may end in half a character: it is left out.
        if self.stopped:
            self._show(self._pieces.end())

    def _show(self, piece: str) -> None:
        if piece:
            self.text += piece
            self._on_text(piece)
