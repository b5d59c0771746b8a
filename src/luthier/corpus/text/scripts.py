"""Which language a text is in, as far as its letters tell.

In: a text. Out: a code of ISO 639-1, `und` where there are too few letters to tell. The script
alone settles Chinese, Japanese and Korean; of the rest it only tells Latin letters, read as
English where hardly any carries an accent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from luthier.corpus.text.measures import without_code

UNKNOWN = "und"
TOLD_BY_SCRIPT = frozenset({"zh", "en", "ja", "ko"})
"""The languages that letters alone tell from each other."""

_LOOK_CHARS = 1_000
"""So much of a text is looked at: more changes nothing, and costs time."""
_MIN_LETTERS = 8
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f]+")
_KANA = re.compile("[\u3041-\u30fa]+")
_HANGUL = re.compile("[\uac00-\ud7a3\u1100-\u11ff]+")
_ASCII_LETTERS = re.compile("[A-Za-z]+")
_SOME_LETTERS = re.compile(f"(?:[A-Za-z][^A-Za-z]*){{{_MIN_LETTERS}}}")
_LETTERS = re.compile(r"[^\W\d_]+")
# A Chinese character says as much as three or four letters do.
_HAN_WEIGHT = 3


def sample(texts: Iterable[str]) -> str:
    """Return the head of what texts say, code aside; where all is code, of the code."""
    texts = list(texts)
    prose = "\n".join(without_code(text[: 2 * _LOOK_CHARS]) for text in texts).strip()
    return (prose or "\n".join(texts))[:_LOOK_CHARS]


def language_by_script(text: str) -> tuple[str, bool]:
    """Return the language that the letters of a text point to.

    Args:
        text: A sample of some hundred characters.

    Returns:
        The code, and whether the script settles it: it does for Chinese, Japanese and Korean.
    """
    if text.isascii():
        return ("en" if _SOME_LETTERS.search(text) else UNKNOWN), False
    num_ascii = _num(_ASCII_LETTERS, text)
    han, kana, hangul = _num(_HAN, text), _num(_KANA, text), _num(_HANGUL, text)
    asian = max(han + kana, hangul)
    if asian and _HAN_WEIGHT * asian >= num_ascii:
        if hangul > han + kana:
            return "ko", True
        # Japanese prose is never without kana; Chinese has none but in quotations.
        return ("ja" if kana * 10 > han + kana else "zh"), True
    num_letters = _num(_LETTERS, text)
    if num_letters < _MIN_LETTERS:
        return UNKNOWN, False
    return ("en" if num_ascii >= 0.95 * num_letters else UNKNOWN), False


def _num(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))
