"""What stands in for personal data: numbered placeholders, or a mask that keeps the shape.

One `Replacer` serves one row: the same value gets the same number in all of its texts, so that
answer and question still speak of the same thing. Rows don't share numbers: a step sees one batch
only, and a number that ran over the corpus would depend on the order of the rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from luthier.corpus.steps.pii_hits import Hit

_PLACEHOLDER = re.compile(r"<([A-Z_]+)_(\d{1,9})>")
_SECRET_MASK = "********"


class Replacer:
    """Replaces the hits of one row.

    Args:
        action: `redact` for placeholders, `mask` for stars.
        texts: All texts of the row: placeholders that stand there keep their numbers.
    """

    def __init__(self, action: Literal["redact", "mask"], texts: Iterable[str] = ()) -> None:
        self._action = action
        self._numbers: dict[tuple[str, str], int] = {}
        self._highest: defaultdict[str, int] = defaultdict(int)
        for text in texts:
            for name, number in _PLACEHOLDER.findall(text):
                kind = name.lower()
                self._highest[kind] = max(self._highest[kind], int(number))

    def replace(self, text: str, hits: list[Hit]) -> str:
        """Return the text with each hit replaced.

        Args:
            text: One text of the row.
            hits: Its hits in the order of the text, without overlaps.
        """
        parts: list[str] = []
        done = 0
        for hit in hits:
            parts += [text[done : hit.start], self._stand_in(hit, text[hit.start : hit.end])]
            done = hit.end
        return "".join([*parts, text[done:]])

    def _stand_in(self, hit: Hit, value: str) -> str:
        if self._action == "mask":
            return masked(hit.kind, value)
        number = self._numbers.get((hit.kind, hit.key))
        if number is None:
            self._highest[hit.kind] += 1
            number = self._numbers[hit.kind, hit.key] = self._highest[hit.kind]
        return f"<{hit.kind.upper()}_{number}>"


def masked(kind: str, value: str) -> str:
    """Return a value with its shape kept and its content gone.

    Args:
        kind: One of `KINDS`.
        value: As it stands in the text.

    Returns:
        `a***@***.com`; numbers with all but the last four digits starred; the first part of an
        address of a machine; for secrets eight stars, since their length is part of the secret.
    """
    if kind == "email":
        return f"{value[0]}***@***.{value.rsplit('.', 1)[-1]}"
    if kind == "ip":
        return value.split(".")[0] + ".*.*.*" if "." in value else value.split(":")[0] + ":*:*"
    if kind in ("url_token", "api_key", "password"):
        return _SECRET_MASK
    kept = {i for i, char in enumerate(value) if char.isalnum()}
    kept = set(sorted(kept)[-4:])
    return "".join("*" if c.isalnum() and i not in kept else c for i, c in enumerate(value))
