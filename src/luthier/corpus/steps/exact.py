"""Exact duplicates: rows that are the same but for case, spacing and the width of letters.

In: rows. Out: the rows to drop, each with the row of the same content that is kept. The whole row
counts: prompt, answer, roles, tools and label; the same prompt with another answer is another row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.hashing import hash_text
from luthier.corpus.overlap import normalised
from luthier.corpus.steps.settings import ExactSettings
from luthier.corpus.text.fields import TURN_FIELDS, cell, turns_of


@dataclass(frozen=True, slots=True)
class ExactDuplicates:
    """The step. Keeps the row of the first source by priority, then the one of the least id."""

    settings: ExactSettings = field(default_factory=ExactSettings)
    name: str = "exact"

    def sketch(self, columns: Columns) -> Columns:
        """Return id, source and a hash of the content of each row.

        Args:
            columns: Rows; a column that is missing counts as empty in every row.
        """
        num_rows = len(columns["id"])
        return {
            "id": list(columns["id"]),
            "source": list(columns.get("source", [""] * num_rows)),
            "exact_key": [_key(columns, row) for row in range(num_rows)],
        }

    def decide(self, sketches: Columns) -> list[Drop]:
        """Return the rows to drop, ordered by id.

        Args:
            sketches: What `sketch` returned for all rows, in any order.
        """
        places = {name: at for at, name in enumerate(self.settings.exact_source_priority)}
        ranked = sorted(
            (places.get(source, len(places)), name, key)
            for name, source, key in zip(
                sketches["id"], sketches["source"], sketches["exact_key"], strict=True
            )
        )
        kept: dict[str, str] = {}
        drops: list[Drop] = []
        for _, name, key in ranked:
            keeper = kept.setdefault(key, name)
            if keeper != name:
                drops.append(Drop(name, "dup_exact", "the same text", keeper, 1.0))
        return sorted(drops, key=lambda drop: drop.id)


def _key(columns: Columns, row: int) -> str:
    """Return a hash of what a row says; turns stay apart, so that no two can flow together."""
    label, text, tools = (cell(columns, name, row) for name in ("label", "text", "tools"))
    parts = [f"{label} ", *_part("text", text), *_part("tools", tools)]
    for name in TURN_FIELDS:
        for turn in turns_of(columns, name, row):
            parts += _part(f"{name} {turn['role']}", turn["content"])
    return hash_text("".join(parts))


def _part(name: str, text: str | None) -> tuple[str, ...]:
    """Return one text of a row with its length, so that no two rows of other parts are equal."""
    if not text:
        return (f"{name} 0:",)
    said = normalised(text)
    return (f"{name} {len(said)}:", said)
