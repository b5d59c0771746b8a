"""Token ids in, one by one; text out, in pieces that can be shown at once and never change.

A character may be spread over several tokens (Chinese characters and emoji often are). Until its
last token is there its bytes decode to U+FFFD, so that a piece is held back while the text ends so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"


def decode_answer(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return the text of generated tokens: special tokens left out, spaces as they are."""
    text = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return cast(str, text)


def without_torn_end(text: str) -> str:
    """Return a text that was cut between two tokens without the half character at its end."""
    return text.rstrip(_INCOMPLETE)


class TextPieces:
    """Turns a growing list of tokens into pieces of text; joined, they are the decoded list."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Start with no tokens."""
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        self._shown = ""

    def add(self, token_id: int) -> str:
        """Take one more token and return the text that is now certain, possibly none."""
        self._token_ids.append(token_id)
        # All of it is decoded each time: some decoders treat a token by what stands before it.
        text = decode_answer(self._tokenizer, self._token_ids)
        return self._advance(without_torn_end(text))

    def end(self) -> str:
        """Return what was held back: bytes that became no character stay U+FFFD."""
        return self._advance(decode_answer(self._tokenizer, self._token_ids))

    def _advance(self, text: str) -> str:
        # Byte-fallback decoders turn a whole run of bytes into U+FFFD while its last character is
        # incomplete; what has been shown comes back with the next token.
        if not text.startswith(self._shown):
            return ""
        piece = text[len(self._shown) :]
        self._shown = text
        return piece
