"""Figures of a text that tell a broken answer from a plain one, the same for Chinese and English.

In: a text. Out: a share from 0 to 1, a length, or yes or no. A Chinese character counts as a word,
and symbols are counted by character, so that a text without spaces isn't punished.
"""

from __future__ import annotations

import re
from itertools import islice

from luthier.corpus.text.code_spans import may_hold_code, outside_code

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|[^\W_\u3400-\u9fff\u3040-\u30ff]+")
_WORD_BYTES = bytes(code if chr(code).isalnum() else ord(" ") for code in range(128)) + bytes(128)
# What is typed as a symbol, and no letter, mark, digit or punctuation of any language.
_ASCII_SYMBOLS = "#$%&*+/<=>@\\^_`{|}~"
_SYMBOLS = re.compile(f"[{re.escape(_ASCII_SYMBOLS)}\xa1-\xbf×÷\u2190-\u2bff\ue000-\uf8ff\ufffd]+")
_SPACE = re.compile(r"\s+")
_SPACE_BYTES = b" \t\n\r\x0b\x0c"
# Rulers and dots are drawn on purpose.
_RUN = re.compile(r"([^\s\-=*_#.~+|·…—─━])\1{31,}")
_FOUR_ALIKE = re.compile(r"([^\s\-=*_#.~+|·…—─━])\1{3}")
MIN_RUN = 32
_GRAM = 5
MIN_WORDS = 50
"""In fewer words, five that come again are no sign of anything."""
MIN_LINES = 4
MIN_SYMBOL_CHARS = 30

_ENDED = re.compile(r"[.!?。！？…:：;；)\]}）】」》〉”’\"'`*~>|\-=─]")
_LONG_CHARS = 200
_LIST_OR_TABLE = re.compile(r"^\s*(?:[-*+•·|#>]|\(?[0-9a-zA-Z一二三四五六七八九十]{1,3}[.)、）]\s)")
_LINK_AT_END = re.compile(r"(?:https?://|www\.)\S+\s*$")
# Verse, lists and signatures end their lines without a full stop: short last lines say nothing.
_SENTENCE_CHARS = 60

_REFUSAL = re.compile(
    r"\b(?:as an ai(?: language)? (?:model|assistant)|as a (?:large )?language model)\b"
    r"|\bi(?:'m| am) (?:sorry|afraid|unable)\b[^.!?\n]{0,80}"
    r"\b(?:can(?:no|')t|unable|not able|won't)\b"
    r"|\bi (?:can(?:no|')t|am unable to|am not able to|won't)"
    r" (?:assist|help|comply|fulfil|provide|do that)"
    r"|(?:抱歉|对不起|很遗憾)[^。！？\n]{0,30}(?:无法|不能|不可以|没法)"
    r"|作为(?:一个|一名|一款)?(?:人工智能|ai|语言模型|大型语言模型)[^。！？\n]{0,30}(?:无法|不能|没有)"
    r"|我(?:无法|不能)(?:协助|帮助您|帮助你|满足|提供)"
)
_HEAD_CHARS = 300
# One of these stands in each refusal: looked for first, for it takes a tenth of the time.
_REFUSAL_SIGNS = (
    *("as an ai", "language model", "sorry", "afraid", "unable", "not able", "can't", "cannot"),
    *("won't", "抱歉", "对不起", "很遗憾", "作为", "我无法", "我不能"),
)


def words_of(text: str) -> list[str] | list[bytes]:
    """Return the words of a text; a Chinese or Japanese character is a word."""
    if text.isascii():
        # The same words, in a third of the time.
        return text.encode("ascii").translate(_WORD_BYTES).split()
    return _WORD.findall(text)


def repeated_words(text: str, *, above: float = 0.0) -> float:
    """Return the share of five-word sequences that stood before in the text.

    Args:
        text: Prose or code.
        above: Only shares above this matter: 0 may be returned for a lower one, sooner.

    Source: the repetition filters of Gopher (arXiv 2112.11446, table A1), by count.
    """
    if len(text) < MIN_WORDS:
        return 0.0
    words = words_of(text)
    if len(words) < MIN_WORDS:
        return 0.0
    num_grams = len(words) - _GRAM + 1
    # Each new word begins a sequence that wasn't there before, but for the last four.
    if 1 - (len(set(words)) - _GRAM + 1) / num_grams <= above:
        return 0.0
    grams = set(zip(*(islice(words, start, None) for start in range(_GRAM)), strict=False))
    return 1 - len(grams) / num_grams


def repeated_lines(text: str) -> float:
    """Return the share of characters in lines that stood before in the text, code aside."""
    if text.count("\n") < MIN_LINES - 1 and not may_hold_code(text):
        return 0.0
    prose = without_code(text)
    lines = [line.strip() for line in prose.split("\n") if line.strip()]
    if len(lines) < MIN_LINES:
        return 0.0
    once = sum(map(len, set(lines)))
    return 1 - once / sum(map(len, lines))


def longest_run(text: str) -> int:
    """Return how often the most repeated character stands in a row, from `MIN_RUN` on; else 0."""
    # A run of 32 shows in every eighth character: few texts have four alike there.
    if not _FOUR_ALIKE.search(text[::8]):
        return 0
    return max((len(run[0]) for run in _RUN.finditer(text)), default=0)


def symbol_share(text: str) -> float:
    """Return the share of symbols in the characters of a text, code and white space aside."""
    prose = without_code(text)
    if prose.isascii():
        raw = prose.encode("ascii")
        num_chars = len(raw.translate(None, _SPACE_BYTES))
        num_plain = len(raw.translate(None, _SPACE_BYTES + _ASCII_SYMBOLS.encode("ascii")))
    else:
        prose = _SPACE.sub("", prose)
        num_chars, num_plain = len(prose), len(_SYMBOLS.sub("", prose))
    return 1 - num_plain / num_chars if num_chars >= MIN_SYMBOL_CHARS else 0.0


def without_code(text: str) -> str:
    """Return a text with the code cut out."""
    if not may_hold_code(text):
        return text
    prose: list[str] = []
    outside_code(text, lambda piece: prose.append(piece) or piece)
    return "\n".join(prose)


def is_cut_off(text: str) -> bool:
    """Return whether a long text ends within a sentence or a block of code.

    Lists, tables, links and verse end without a full stop and are no such case.
    """
    if text.count("```") % 2:
        return True
    text = text.rstrip()
    if len(text) < _LONG_CHARS or _ENDED.match(text[-1]) or _LINK_AT_END.search(text):
        return False
    last = text[text.rfind("\n") + 1 :]
    return len(last) >= _SENTENCE_CHARS and not _LIST_OR_TABLE.match(last)


def is_refusal(text: str) -> bool:
    """Return whether an answer begins by saying that it won't or can't answer."""
    head = text[:_HEAD_CHARS].replace("’", "'").lower()
    return any(map(head.__contains__, _REFUSAL_SIGNS)) and _REFUSAL.search(head) is not None
