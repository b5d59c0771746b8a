"""The rest of an epoch that was begun with other settings: every row is trained on just once.

Comes in: which orders an epoch was begun in, and how far each came. Goes out: the rows that are
left, in batches of the new settings. No list of rows is stored: an order is a pure function of its
settings, so each can be walked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.batches.packing import build_order
from luthier.batches.sampling import BatchOrder
from luthier.batches.settings import BatchSettings


def describe_order(settings: BatchSettings, seed: int, capacity: int | None) -> dict[str, Any]:
    """Return all that the order of rows and their division into windows follow from.

    Args:
        settings: Batch size, accumulation, packing, grouping.
        seed: The run's seed.
        capacity: Tokens that a packed row may hold.

    Returns:
        Plain JSON; equal where the order is equal.
    """
    described: dict[str, Any] = {
        "rows_per_batch": settings.rows_per_batch,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "group_by_length": settings.group_by_length,
        "fills_rows": settings.packing is True,
        "seed": seed,
    }
    if settings.packing is True:
        described |= {"packing_window": settings.packing_window, "capacity": capacity}
    return described


def rows_left(
    lengths: Sequence[int], epoch: int, earlier: Sequence[Mapping[str, Any]]
) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows of an epoch that none of the earlier orders came to.

    Args:
        lengths: Tokens of each row.
        epoch: Counts from 0.
        earlier: One after another, what the epoch was trained with: `order`, as `describe_order`
            returned it, and `windows`, how many of it were done.
    """
    left = np.arange(len(lengths), dtype=np.int64)
    for part in earlier:
        order = _order_of(part["order"], np.asarray(lengths)[left])
        num_batches = part["windows"] * part["order"]["gradient_accumulation_steps"]
        seen = list(chain(*islice(order.batches(epoch, 0), num_batches)))
        left = np.delete(left, seen)
    return left


def _order_of(described: Mapping[str, Any], lengths: npt.NDArray[np.int64]) -> BatchOrder:
    settings = BatchSettings(
        per_device_train_batch_size=described["rows_per_batch"],
        group_by_length=described["group_by_length"],
        packing=described["fills_rows"],
        **({"packing_window": described["packing_window"]} if described["fills_rows"] else {}),
    )
    return build_order(lengths.tolist(), settings, described["seed"], described.get("capacity"))


class RemainingBatches:
    """Some of the rows as a `BatchOrder`."""

    def __init__(self, rows: npt.NDArray[np.int64], order: BatchOrder) -> None:
        """Put numbers of rows in place of the numbers that an order uses.

        Args:
            rows: Numbers of the rows.
            order: Over as many rows, numbered from 0.
        """
        self._rows = rows
        self._order = order

    def num_batches(self, epoch: int) -> int:
        """Return how many micro-batches there are."""
        return self._order.num_batches(epoch)

    def batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        """Return the row numbers of each micro-batch, from number `start` on."""
        for batch in self._order.batches(epoch, start):
            yield self._rows[batch].tolist()
