"""Validation rows that stand in the training data: they measure memory, not learning."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from luthier.core.hashing import hash_text


def overlapping(train: Iterable[str], val: Iterable[str]) -> list[int]:
    """Return which validation rows stand in training, but for case, spacing and width of letters.

    Args:
        train: The text of each training row.
        val: The text of each validation row.

    Returns:
        Indexes into `val`, ascending.
    """
    # Hashes rather than texts: a quarter of a kilobyte a row, however long the rows are.
    known = {hash_text(normalised(text)) for text in train}
    return [row for row, text in enumerate(val) if hash_text(normalised(text)) in known]


def normalised(text: str) -> str:
    """Return a text as it is compared: NFKC, case folded, runs of white space made one space."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
