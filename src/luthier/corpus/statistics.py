"""What a corpus is made of: rows, letters, tokens, languages, categories, lengths.

In: batches of rows. Out: counts that can be added up, so that batches can be counted anywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from luthier.contracts.corpus_step import Columns
from luthier.corpus.lengths import TokenRate, length_class
from luthier.corpus.text.fields import cell, num_rows, texts_of

UNKNOWN = "unknown"
_MOST_NAMES = 50
"""Categories that are listed by name; the others are counted together."""


@dataclass(slots=True)
class Tally:
    """Counts of rows.

    Attributes:
        rows: How many.
        characters: Letters of all their texts.
        tokens: About how many tokens those are.
        languages: Rows by language; `unknown` where no step has looked.
        categories: Rows by category, where they have one.
        kinds: Rows by what they are for: conversation, preference, kto, text.
        lengths: Rows by class of length, under its upper edge in tokens (0: longer than all).
        sources: Rows by source.
    """

    rows: int = 0
    characters: int = 0
    tokens: float = 0.0
    languages: Counter[str] = field(default_factory=Counter[str])
    categories: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])
    lengths: Counter[int] = field(default_factory=Counter[int])
    sources: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(cls, columns: Columns, rate: TokenRate) -> Tally:
        """Count the rows of a batch."""
        found = cls()
        for row in range(num_rows(columns)):
            texts = texts_of(columns, row)
            num_tokens = sum(map(rate.tokens, texts))
            found.rows += 1
            found.characters += sum(map(len, texts))
            found.tokens += num_tokens
            found.languages[cell(columns, "language", row) or UNKNOWN] += 1
            found.kinds[kind_of_row(columns, row)] += 1
            found.lengths[length_class(num_tokens)] += 1
            found.sources[columns["source"][row]] += 1
            category = cell(columns, "category", row)
            if category is not None:
                found.categories[category] += 1
        return found

    def add(self, other: Tally) -> None:
        """Add the counts of other rows to these."""
        self.rows += other.rows
        self.characters += other.characters
        self.tokens += other.tokens
        self.languages.update(other.languages)
        self.categories.update(other.categories)
        self.kinds.update(other.kinds)
        self.lengths.update(other.lengths)
        self.sources.update(other.sources)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as the manifest has them."""
        categories = self.categories.most_common()
        rest = sum(count for _, count in categories[_MOST_NAMES:])
        ordered = sorted(self.lengths.items(), key=lambda item: item[0] or 1 << 62)
        return {
            "rows": self.rows,
            "characters": self.characters,
            "tokens": round(self.tokens),
            "languages": _by_count(self.languages),
            "categories": dict(sorted(categories[:_MOST_NAMES], key=lambda c: (-c[1], c[0])))
            | ({"(others)": rest} if rest else {}),
            "kinds": _by_count(self.kinds),
            "length_histogram": [[edge, count] for edge, count in ordered],
        }


def kind_of_row(columns: Columns, row: int) -> str:
    """Return what a row is for: `preference`, `kto`, `conversation` or `text`."""
    if cell(columns, "chosen", row) is not None or cell(columns, "rejected", row) is not None:
        return "preference"
    if cell(columns, "label", row) is not None:
        return "kto"
    return "conversation" if cell(columns, "messages", row) else "text"


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
