"""Where personal data stands in one text: kinds, hits, and which of two overlapping hits wins.

A hit carries its value in memory, for numbering; nothing here prints, stores or counts by value.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

PiiKind = Literal[
    "url_token",
    "api_key",
    "password",
    "email",
    "cn_id",
    "iban",
    "credit_card",
    "bank_card",
    "ip",
    "phone",
]
KINDS: tuple[PiiKind, ...] = get_args(PiiKind)
"""All kinds; where two hits overlap, the one whose kind stands first here wins.

What is a secret goes before what is a number, and what a checksum confirms before what only has
the right shape: an address inside a password goes with the password.
"""

_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Hit:
    """One piece of personal data in a text.

    Attributes:
        start: Index of its first character.
        end: Index after its last character.
        kind: What it is.
        key: Its value in normal form, so that two spellings get one number. Left out of `repr`,
            so that no traceback or log shows it.
    """

    start: int
    end: int
    kind: PiiKind
    key: str = field(repr=False)


def without_overlaps(hits: Iterable[Hit]) -> list[Hit]:
    """Return the hits that win over those that they overlap, in the order of the text.

    Args:
        hits: Candidates of one text, in any order.
    """
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda h: (_RANK[h.kind], h.start, -h.end)):
        place = bisect_left(kept, hit.start, key=lambda h: h.start)
        is_clear_before = place == 0 or kept[place - 1].end <= hit.start
        if is_clear_before and (place == len(kept) or hit.end <= kept[place].start):
            kept.insert(place, hit)
    return kept
