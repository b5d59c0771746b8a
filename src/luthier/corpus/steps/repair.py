"""Repair: text as it was before a machine damaged it.

In: any rows. Out: the same rows with wrongly decoded text, control and invisible characters,
leftover HTML entities and loose accents mended in every text, and counts of rows by kind. Nothing
is dropped, and nothing is changed for taste: quotes, width, punctuation and case stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from luthier.contracts.corpus_step import Columns, StepResult
from luthier.corpus.steps.settings import RepairSettings
from luthier.corpus.text.characters import compose, remove_controls, remove_invisible
from luthier.corpus.text.entities import ENTITY, decode_entities, speaks_of_markup
from luthier.corpus.text.fields import num_rows, replace_texts, texts_of
from luthier.corpus.text.mojibake import LOST, repair_mojibake

Mend = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Repair:
    """The step `repair`.

    Attributes:
        settings: Which kinds of damage are mended.
    """

    settings: RepairSettings = field(default_factory=RepairSettings)
    name: str = "repair"

    def __call__(self, columns: Columns) -> StepResult:
        """Mend all texts of each row.

        Args:
            columns: Rows; they stay as they are, what changes is made anew.

        Returns:
            All rows. Counts are of rows: `repaired` (at least one text changed),
            `repaired_<kind>`, and `lost_bytes` (damage that can't be mended, left as it is).

        Raises:
            MissingExtraError: A text looks wrongly decoded, and ftfy is not installed.
        """
        counts: Counter[str] = Counter()
        new = dict(columns)
        for row in range(num_rows(columns)):
            texts = texts_of(columns, row)
            if not any(map(_may_be_damaged, texts)):
                continue
            mended, kinds = repair_texts(texts, self.settings)
            counts.update(f"repaired_{kind}" for kind in kinds)
            counts["repaired"] += bool(kinds)
            counts["lost_bytes"] += any(map(LOST.search, mended))
            table = dict(zip(texts, mended, strict=True))
            for name, value in replace_texts(columns, row, table.__getitem__):
                _set(new, columns, name, row, value)
        return StepResult(new, counts=+counts)


def repair_texts(texts: list[str], settings: RepairSettings) -> tuple[list[str], set[str]]:
    """Mend the texts of one row.

    One repair can bring another's work to light (an entity may name a zero-width space), so all of
    them go again until nothing changes: what comes out, comes out the same again.

    Args:
        texts: All texts of the row: one that speaks of HTML keeps the entities of all.
        settings: Which kinds of damage are mended.

    Returns:
        The texts in their order, and the kinds of damage that were found.
    """
    kinds: set[str] = set()
    while True:
        before = texts
        for kind, mend in _mends(settings, texts):
            mended = [mend(text) for text in texts]
            if mended != texts:
                kinds.add(kind)
                texts = mended
        if texts == before:
            return texts, kinds


def _mends(settings: RepairSettings, texts: list[str]) -> list[tuple[str, Mend]]:
    """Return the repairs in their order: bytes first, for C1 controls are a trace of them."""
    has_entities = settings.repair_entities and any(map(ENTITY.search, texts))
    mends: list[tuple[str, bool, Mend]] = [
        ("encoding", settings.repair_encoding, repair_mojibake),
        ("controls", settings.repair_controls, remove_controls),
        ("invisible", settings.repair_invisible, remove_invisible),
        ("entities", has_entities and not speaks_of_markup(texts), decode_entities),
        ("accents", settings.repair_accents, compose),
    ]
    return [(kind, mend) for kind, is_on, mend in mends if is_on]


def _may_be_damaged(text: str) -> bool:
    """Return whether a text is worth a look: plain ASCII without `&` and controls is not."""
    # isprintable also refuses newlines and tabs, so these are taken out first.
    plain = text.isascii() and "&" not in text
    return not (plain and text.replace("\n", "").isprintable())


def _set(new: Columns, old: Columns, name: str, row: int, value: Any) -> None:
    """Put one value into a column, which is copied the first time."""
    if new[name] is old[name]:
        new[name] = list(old[name])
    new[name][row] = value
