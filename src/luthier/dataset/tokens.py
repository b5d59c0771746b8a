"""Text to ids, with the place of every token: the one way in which luthier tokenises.

In: texts whose special tokens are spelled out in them. Out: ids and character places. BOS is
never added here, for a chat template writes its own. Prompts for inference and rows for training
both come through here, so that they can't differ.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, overload

from luthier.core.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerFast

MAX_REMEMBERED_CHARS = 64
MAX_REMEMBERED_TEXTS = 4096


class EncodingSpans(Sequence[tuple[int, int]]):
    """The spans of an encoding, each taken over when it is asked for.

    A row needs a dozen of them; a list of all takes a fifth of the time that tokenising takes.
    """

    __slots__ = ("_encoding",)

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def __len__(self) -> int:
        return len(self._encoding)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return self._encoding.offsets[index]
        # As a list has it: -1 is the last, and an index beyond the end is an IndexError.
        span = self._encoding.token_to_chars(range(len(self._encoding))[index])
        assert span is not None, "every token of a text stands for a part of it"
        return span

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text.

    Attributes:
        ids: Token ids.
        spans: Where each token starts and ends, in characters. Ends never fall: a character of
            several tokens (one of Chinese in byte-level BPE) ends in all of them at the same
            place. Some tokenizers leave out a leading space.
    """

    ids: list[int]
    spans: Sequence[tuple[int, int]]

    def index(self, place: int) -> int:
        """Return the first token that reaches beyond a place in the text.

        Starts would not do: where a tokenizer leaves leading spaces out of its offsets, a token
        that stands across the place would look as if it began behind it.
        """
        if not self.spans or self.end(-1) <= place:
            return len(self.ids)  # most places that are asked for are the end of the text
        return bisect_right(self.spans, place, key=itemgetter(1))

    def start(self, index: int) -> int:
        """Return where a token starts."""
        return self.spans[index][0]

    def end(self, index: int) -> int:
        """Return where a token ends."""
        return self.spans[index][1]

    def ends(self) -> list[int]:
        """Return where each token ends."""
        return [end for _, end in self.spans[:]]

    def followed_by(self, other: Tokens, place: int) -> Tokens:
        """Return these tokens and those of a text that goes on at `place`."""
        behind = [(place + start, place + end) for start, end in other.spans[:]]
        return Tokens(self.ids + other.ids, [*self.spans[:], *behind])

    def without_first(self, num_tokens: int, num_chars: int) -> Tokens:
        """Return the tokens behind the first ones, for a text without its first characters."""
        spans = [
            (max(0, start - num_chars), max(0, end - num_chars))
            for start, end in self.spans[num_tokens:]
        ]
        return Tokens(self.ids[num_tokens:], spans)


def with_rising_ends(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in which no token ends before one that stands left of it.

    Normalisers may make several characters of one, or one of several, in another order.
    """
    latest = 0
    risen: list[tuple[int, int]] = []
    for start, end in spans:
        latest = max(latest, end)
        risen.append((start, latest))
    return risen


class Encoder:
    """A tokenizer, and what luthier needs to know of its control tokens.

    Attributes:
        control_ids: Ids of the special tokens, of eos, and of added tokens that the chat template
            spells. They are walls: what stands right of one has no influence on the ids left of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
        self.tokenizer = tokenizer
        self.control_ids = frozenset(
            id_
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.special
            or token.content == tokenizer.eos_token
            or (token.content in template and not token.content.isspace())
        )
        # Without a normaliser tokens stand in the order of the text; ends can't fall.
        self._ends_rise = tokenizer.backend_tokenizer.normalizer is None
        self._remembered: dict[str, list[int]] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise texts, in several threads unless TOKENIZERS_PARALLELISM forbids it."""
        encodings = self._backend().encode_batch(list(texts), add_special_tokens=False)
        return [self._tokens(encoding) for encoding in encodings]

    def encode(self, text: str) -> Tokens:
        """Tokenise one text."""
        return self._tokens(self._backend().encode(text, add_special_tokens=False))

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text alone; short texts are remembered, for headers recur."""
        known = self._remembered.get(text)
        if known is not None:
            return known
        ids = self._backend().encode(text, add_special_tokens=False).ids
        if len(text) <= MAX_REMEMBERED_CHARS and len(self._remembered) < MAX_REMEMBERED_TEXTS:
            self._remembered[text] = ids
        return ids

    def border_holds(self, text: str, tokens: Tokens, border: int) -> bool:
        """Return whether the tokens before a place are those of the text before it, alone.

        At inference the text ends at the border, so nothing behind it can have had a say. It
        is enough to tokenise again from the last control token on, for that is a wall.
        """
        cut = tokens.index(border)
        wall = next((i for i in reversed(range(cut)) if tokens.ids[i] in self.control_ids), None)
        if wall is None:
            return self.ids(text[:border]) == tokens.ids[:cut]
        return self.ids(text[tokens.start(wall) : border]) == tokens.ids[wall:cut]

    def encode_in_two(self, text: str, whole: Tokens, border: int) -> Tokens | None:
        """Tokenise a text before and behind a border apart, as a model does that goes on writing.

        Returns:
            The joined tokens, or None where they would not read as the text does: some tokenizers
            put a space before every text that they are given.
        """
        head = self.encode(text[:border])
        reading = self._decode(whole.ids)
        for tail in self._continuations(text[border:]):
            if self._decode(head.ids + tail.ids) == reading:
                return head.followed_by(tail, border)
        return None

    def check_text(self, text: str, where: str) -> None:
        """See that a text is valid Unicode, which the backend takes for granted.

        Raises:
            DataError: It holds half of a surrogate pair.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text holds half of a surrogate pair, {text[error.start]!r}",
                where=where,
                mend="Remove it, or write the whole character; JSON needs both \\uXXXX halves.",
            ) from error

    def _tokens(self, encoding: Encoding) -> Tokens:
        if self._ends_rise:
            return Tokens(encoding.ids, EncodingSpans(encoding))
        return Tokens(encoding.ids, with_rising_ends(encoding.offsets))

    def _continuations(self, text: str) -> Iterator[Tokens]:
        yield self.encode(text)
        # Behind a newline no space is put before the text; then the newline is taken off again.
        newline = self.ids("\n")
        behind = self.encode("\n" + text)
        if behind.ids[: len(newline)] == newline:
            yield behind.without_first(len(newline), 1)

    def _decode(self, ids: list[int]) -> str:
        return self._backend().decode(ids, skip_special_tokens=False)

    def _backend(self) -> Tokenizer:
        """Return the backend as it was loaded: any call of the wrapper may leave padding on."""
        backend = self.tokenizer.backend_tokenizer
        if backend.padding is not None:
            backend.no_padding()
        if backend.truncation is not None:
            backend.no_truncation()
        backend.encode_special_tokens = self.tokenizer.split_special_tokens
        return backend
