"""The files that a corpus was made of.

In: the part `sources` of a corpus's manifest. Out: a line each for the data card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.core.units import format_bytes
from luthier.report.words import number, share

UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One source, as text; what is not known is a dash or None.

    Attributes:
        path: Where it lay, or its name where it is no file.
        formats: What its rows were, such as `alpaca`; with their number where there are several.
        size: Its bytes.
        sha256: Of the file.
        weight: How much its rows weigh, where that was set.
        rows: How many rows it has.
        rows_left: How many of them are left.
        share: These of those.
    """

    path: str
    formats: list[str]
    size: str | None
    sha256: str | None
    weight: str | None
    rows: str
    rows_left: str
    share: str


def sources(manifest: Mapping[str, Any]) -> list[SourceRow]:
    """Return the sources in their order."""
    return [_source(source) for source in manifest.get("sources") or ()]


def _source(source: Mapping[str, Any]) -> SourceRow:
    formats: Mapping[str, int] = source.get("formats") or {}
    num_bytes, weight = source.get("bytes"), source.get("weight")
    rows, left = source.get("rows"), source.get("rows_left")
    return SourceRow(
        path=source.get("path") or source["name"],
        formats=[
            f"{name} {number(num)}" if len(formats) > 1 else name for name, num in formats.items()
        ],
        size=None if num_bytes is None else format_bytes(num_bytes),
        sha256=source.get("sha256"),
        weight=None if weight is None else f"{weight:g}",
        rows=UNKNOWN if rows is None else number(rows),
        rows_left=UNKNOWN if left is None else number(left),
        share=UNKNOWN if rows is None or left is None else share(left, rows),
    )
