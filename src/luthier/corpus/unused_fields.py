"""Fields of a row that nothing is read from: passed over, and counted by name.

In: rows and their layouts. Out: the names of filled fields that have no part in a row's record.
What belongs to what a model sees (`images`, `functions`) is refused elsewhere: this is the rest,
such as `id` and `source`, and the field whose name has a slip.
"""

from __future__ import annotations

from luthier.corpus.answers import LABELS
from luthier.corpus.layouts import FlatLayout, Layout, RecordLayout, Row, TurnsLayout
from luthier.corpus.unify import RowColumns

MAX_NAMES = 50
"""So many names are told apart: a file may have other names in each row."""

OTHERS = "others"
MAX_NAME_CHARS = 40
_IN_ANY_ROW = ("weight", "loss", "train", "chosen", "rejected", "margin", *LABELS)


class UnusedFields:
    """Finds the fields of the rows of one source that nothing is read from.

    Args:
        columns: Columns beside the text that are looked at.
    """

    def __init__(self, columns: RowColumns) -> None:
        named = (columns.task, columns.category, columns.source_category)
        self._always = frozenset({*_IN_ANY_ROW, *(name for name in named if name)})
        self._names: set[str] = set()
        # Rows of one source mostly have the same fields.
        self._by_fields: dict[tuple[object, ...], tuple[str, ...]] = {}

    def of(self, row: Row, layout: Layout) -> tuple[str, ...]:
        """Return the names of the row's filled fields that its layout has no part for.

        Names beyond the first `MAX_NAMES` of the source are all called `OTHERS`.
        """
        used = _used(layout)
        if used is None:
            return ()
        key = (used, *row)
        found = self._by_fields.get(key)
        if found is None:
            found = tuple(name for name in row if name not in used and name not in self._always)
            if len(self._by_fields) < MAX_NAMES:
                self._by_fields[key] = found
        if not found:
            return ()
        # Tables of rows of several formats have all columns in each row, most of them empty.
        return tuple(self._told(name) for name in found if row[name] not in (None, ""))

    def _told(self, name: str) -> str:
        name = name[:MAX_NAME_CHARS]
        if name not in self._names and len(self._names) < MAX_NAMES:
            self._names.add(name)
        return name if name in self._names else OTHERS


def _used(layout: Layout) -> tuple[str | None, ...] | None:
    """Return the fields that a layout reads; None for a prepared corpus: its steps add columns."""
    if isinstance(layout, RecordLayout):
        return None
    if isinstance(layout, TurnsLayout):
        parts = (layout.turns, layout.system, layout.tools, layout.answer)
    elif isinstance(layout, FlatLayout):
        parts = (layout.prompt, layout.answer, layout.query)
        parts += (layout.system, layout.history, layout.tools)
    else:
        return (layout.text,)
    return (*parts, layout.label, *(layout.sides or ()))
