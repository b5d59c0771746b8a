"""Texts of the data, so that a person can read and compare them on a page.

In: any text, also one with control characters, direction marks or broken Unicode. Out: the same
with these made visible, and two texts as pieces of which each is shared or not. Nothing is escaped
here: that is the template's part.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

MOST_CHARS = 1_500
"""A text is shown up to this length."""

_LONG_RUN = 320
"""Of a longer run that two texts share, the middle is left out."""
_RUN_END = 120
_MOST_BACK = 20
_MOST_PAIRS = 500_000
_LEAST_SHARED = 0.2
"""Texts that share less are shown without marks: nearly all of them would be marked."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003347f"
_TOKEN = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])\w)+|\s+|.", re.DOTALL)
_JOINERS = "\u200c\u200d"
"""Emojis and several scripts need them; they move nothing and hide nothing."""
_PLAIN = "\n\t"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a shown text.

    Attributes:
        kind: `same` and `differs` say whether the other text has it; `gap` stands for text that
            is left out.
        text: The stretch; empty for a gap.
        num_chars: Characters that it stands for.
    """

    kind: Literal["same", "differs", "gap"]
    text: str
    num_chars: int


def visible(text: str) -> str:
    """Return a text in which nothing is invisible or changes the text around it.

    Control characters become their pictures (`␛`), other characters without a shape, such as
    marks that turn the direction of writing, their code (`⟨U+202E⟩`). Line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def one_line(text: str, most_chars: int) -> str:
    """Return a text on one line, cut to a length."""
    line = " ".join(text.split())
    return line if len(line) <= most_chars else line[: most_chars - 1].rstrip() + "…"


def shortened(text: str) -> list[Piece]:
    """Return the beginning of a text, with a gap for the rest."""
    head = text[:MOST_CHARS]
    rest = len(text) - len(head)
    return [Piece("same", head, len(head)), *([Piece("gap", "", rest)] if rest else [])]


def differences(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Return two texts, each in pieces that the other has or has not.

    Words are compared whole, Chinese and Japanese by character.

    Args:
        left: One text.
        right: The other.
    """
    starts = _start(left, right), _start(right, left)
    heads = left[starts[0] :][:MOST_CHARS], right[starts[1] :][:MOST_CHARS]
    tokens = [_TOKEN.findall(head) for head in heads]
    matcher = SequenceMatcher(None, *tokens, autojunk=_is_repetitive(*tokens))
    blocks = matcher.get_matching_blocks()
    num_shared = _num_chars("".join(tokens[0][b.a : b.a + b.size]) for b in blocks)
    if num_shared < _LEAST_SHARED * min(map(_num_chars, tokens)):
        return shortened(left), shortened(right)
    marked = (
        _marked(tokens[0], ((block.a, block.size) for block in blocks)),
        _marked(tokens[1], ((block.b, block.size) for block in blocks)),
    )
    return _whole(left, starts[0], marked[0]), _whole(right, starts[1], marked[1])


def _is_repetitive(left: list[str], right: list[str]) -> bool:
    """Tell whether so many tokens are equal that an exact comparison would take seconds."""
    counts = Counter(left), Counter(right)
    return sum(counts[0][token] * counts[1][token] for token in counts[0]) > _MOST_PAIRS


def _num_chars(texts: Iterable[str]) -> int:
    """Return how many characters there are, spaces aside: any two texts share those."""
    return sum(len("".join(text.split())) for text in texts)


def _start(text: str, other: str) -> int:
    """Return where to begin to compare: shortly before the first difference, if that is late."""
    num_shared = _num_shared(text, other)
    return 0 if num_shared <= _LONG_RUN else _word_start(text, num_shared - _RUN_END)


def _num_shared(text: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(text), len(other)))


def _whole(text: str, start: int, middle: list[Piece]) -> list[Piece]:
    """Return the pieces of a text of which only the middle was compared."""
    first = min(_word_start(text, _RUN_END), start)
    head = [Piece("same", text[:first], first), Piece("gap", "", start - first)] if start else []
    rest = len(text) - start - MOST_CHARS
    return [*head, *middle, *([Piece("gap", "", rest)] if rest > 0 else [])]


def _marked(tokens: list[str], shared: Iterable[tuple[int, int]]) -> list[Piece]:
    is_shared = [False] * len(tokens)
    for first, size in shared:
        is_shared[first : first + size] = [True] * size
    for at in range(1, len(tokens) - 1):
        # One mark over several words reads better than one a word.
        if tokens[at].isspace() and not is_shared[at - 1] and not is_shared[at + 1]:
            is_shared[at] = False
    pieces: list[Piece] = []
    for same, run in groupby(zip(is_shared, tokens, strict=True), key=lambda item: item[0]):
        text = "".join(token for _, token in run)
        pieces += _without_middle(text) if same else _without_margins(text)
    return pieces


def _without_margins(text: str) -> Iterator[Piece]:
    """Yield a stretch that differs, the white space around it unmarked."""
    core = text.strip() or text
    before, _, after = text.partition(core)
    if before:
        yield Piece("same", before, len(before))
    yield Piece("differs", core, len(core))
    if after:
        yield Piece("same", after, len(after))


def _without_middle(text: str) -> Iterator[Piece]:
    """Yield a stretch that both texts have; of a long one, the beginning and the end."""
    if len(text) <= _LONG_RUN:
        yield Piece("same", text, len(text))
        return
    first, last = _word_start(text, _RUN_END), _word_start(text, len(text) - _RUN_END)
    yield Piece("same", text[:first], first)
    yield Piece("gap", "", last - first)
    yield Piece("same", text[last:], len(text) - last)


def _word_start(text: str, at: int) -> int:
    """Return the start of the word at a place, or the place where no space is near."""
    near = text.rfind(" ", max(at - _MOST_BACK, 0), at)
    return at if near < 0 else near + 1


def _visible(char: str) -> str:
    code = ord(char)
    if char in _PLAIN or char in _JOINERS:
        return char
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    # Control, format, half a surrogate pair, the odd line ends, and code points that are none.
    is_shapeless = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return f"⟨U+{code:04X}⟩" if is_shapeless or code & 0xFFFE == 0xFFFE else char
