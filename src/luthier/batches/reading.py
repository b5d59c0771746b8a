"""Prepared rows by number, in the form that makes tensors with the fewest copies.

In: a datasets.Dataset or a list of rows. Out: rows whose sequences are numpy arrays cut out of
Arrow's memory, where it is a Dataset; a list stays what it is. Python numbers are never made of
tokens: that was most of the time that a batch took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def open_rows(rows: Any) -> Any:
    """Return rows as a DataLoader is to read them: `ArrowRows` of a datasets.Dataset."""
    return ArrowRows(rows) if hasattr(rows, "with_format") else rows


class ArrowRows:
    """A datasets.Dataset read a batch at a time, as a map-style dataset of torch."""

    def __init__(self, rows: Any) -> None:
        """Open the rows; nothing is read yet."""
        self._rows = rows.with_format("arrow")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one row."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows in the order asked for; a DataLoader calls this with a whole batch.

        Returns:
            Each row's columns by name: lists of numbers as read-only arrays, all else as Python
            has it.
        """
        table = self._rows[list(rows)]
        columns = [_cells(table.column(name)) for name in table.column_names]
        names: list[str] = table.column_names
        return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _cells(column: Any) -> list[Any]:
    """Return the cells of a chunked Arrow column."""
    import pyarrow as pa

    cells = column.combine_chunks()
    if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
        return cells.to_pylist()
    values, number = cells.flatten(), cells.type.value_type
    is_number = pa.types.is_integer(number) or pa.types.is_floating(number)
    if not is_number or cells.null_count or values.null_count:
        return cells.to_pylist()
    ends = np.cumsum(cells.value_lengths().to_numpy())
    numbers = values.to_numpy()
    return [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]
