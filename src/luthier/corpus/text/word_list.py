"""A user's list of words, and where they stand in a text.

In: a file with one word a line, and texts. Out: the lines of the list that match. Letters match as
whole words whatever their case; Chinese, which has no spaces, matches anywhere.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from luthier.core.errors import MissingExtraError, SettingsError


def read_word_list(path: Path) -> tuple[tuple[int, str], ...]:
    """Read a list of words: UTF-8, one a line; blank lines and lines after `#` are passed over.

    Args:
        path: The file.

    Returns:
        The number of each line with its word in small letters, the first of equal ones.

    Raises:
        SettingsError: The file can't be read, or holds no word.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the word list can't be read: {error}",
            where=str(path),
            mend="Name a UTF-8 text file with one word a line in quality_word_list.",
        ) from error
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word = line.strip().lower()
        if word and not word.startswith("#"):
            first.setdefault(word, number)
    if not first:
        raise SettingsError(
            "the word list holds no word",
            where=str(path),
            mend="Write one word a line, or leave quality_word_list out.",
        )
    return tuple((number, word) for word, number in first.items())


def lines_found(words: tuple[tuple[int, str], ...], text: str) -> list[int]:
    """Return the lines of the list whose words stand in a text, ascending.

    Args:
        words: A list as `read_word_list` returns it.
        text: Where to look.

    Raises:
        MissingExtraError: ahocorasick_rs is not installed.
    """
    text = text.lower()
    found: set[int] = set()
    for index, start, end in _automaton(words).find_matches_as_indexes(text, overlapping=True):
        if not (_goes_on(text, start - 1, start) or _goes_on(text, end - 1, end)):
            found.add(words[index][0])
    return sorted(found)


def _goes_on(text: str, left: int, right: int) -> bool:
    """Return whether two neighbouring characters belong to one word of letters or digits."""
    if left < 0 or right >= len(text):
        return False
    return _is_spaced(text[left]) and _is_spaced(text[right])


def _is_spaced(character: str) -> bool:
    """Return whether a character is of a script that puts spaces between words."""
    return character.isalnum() and not "\u2e80" <= character <= "\ud7ff"


@lru_cache(maxsize=4)
def _automaton(words: tuple[tuple[int, str], ...]) -> Any:
    # Kept by the process, not by the step: an automaton can't be pickled.
    try:
        from ahocorasick_rs import AhoCorasick
    except ImportError as error:
        raise MissingExtraError.of("ahocorasick_rs", "corpus", "quality_word_list") from error
    return AhoCorasick([word for _, word in words])
