"""How long rows are, in tokens, without tokenising them: a rate for each of two kinds of letters.

In: texts. Out: about how many tokens they are. A tokenizer that counts a few hundred rows sets the
two rates; without one they are those of common tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOKEN_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Upper edges of the classes of length, in tokens."""


@dataclass(frozen=True, slots=True)
class TokenRate:
    """About how many tokens a text has.

    Attributes:
        narrow: Tokens for each letter that is one byte or two in UTF-8, such as a Latin letter.
        wide: Tokens for each letter that is three or more, such as a Chinese character.
        tokenizer: Whose tokens were counted; None where nobody's were.
    """

    narrow: float = 0.25
    wide: float = 0.75
    tokenizer: str | None = None

    @classmethod
    def of(cls, texts: Sequence[str], counts: Sequence[int], tokenizer: str) -> TokenRate:
        """Fit the rates to texts whose tokens were counted.

        Args:
            texts: A sample, of all languages of the corpus.
            counts: How many tokens each of them has.
            tokenizer: Whose.
        """
        sizes = np.array([_letters(text) for text in texts], float).reshape(-1, 2)
        common = cls()
        rates = np.array([common.narrow, common.wide])
        has = sizes.sum(axis=0) > 0
        if has.any():
            found, *_ = np.linalg.lstsq(sizes[:, has], np.array(counts, float), rcond=None)
            rates[has] = np.maximum(found, 0.01)
        return cls(float(rates[0]), float(rates[1]), tokenizer)

    def tokens(self, text: str) -> float:
        """Return about how many tokens a text has."""
        narrow, wide = _letters(text)
        return self.narrow * narrow + self.wide * wide


def length_class(num_tokens: float) -> int:
    """Return the upper edge of the class of length that a row falls in; 0: longer than all."""
    return next((edge for edge in TOKEN_EDGES if num_tokens <= edge), 0)


def class_name(edge: int) -> str:
    """Return a class of length in words, for example `65 to 128`."""
    if edge == 0:
        return f"over {TOKEN_EDGES[-1]}"
    at = TOKEN_EDGES.index(edge)
    return f"{TOKEN_EDGES[at - 1] + 1 if at else 1} to {edge}"


def _letters(text: str) -> tuple[int, int]:
    if text.isascii():
        return len(text), 0
    # A letter of the wide kind has three bytes and nearly always one code point; this is four
    # times as fast as looking at each.
    extra = len(text.encode("utf-8", "surrogatepass")) - len(text)
    wide = extra // 2
    return len(text) - wide, wide
