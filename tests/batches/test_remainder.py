"""An epoch that is finished with other settings than it was begun with."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.batches.packing import build_order
from luthier.batches.remainder import RemainingBatches, describe_order, rows_left
from luthier.batches.settings import BatchSettings

LENGTHS = [1 + row % 5 for row in range(23)]


def settings_of(**names: Any) -> BatchSettings:
    return BatchSettings(**{"packing": False} | names)


def test_equal_orders_are_described_alike() -> None:
    one = describe_order(settings_of(packing="padding_free"), 1, 8)
    assert one == describe_order(settings_of(packing=False, packing_window=7), 1, 9)
    packed = describe_order(settings_of(packing=True), 1, 8)
    for other in (
        describe_order(settings_of(packing=True), 2, 8),
        describe_order(settings_of(packing=True), 1, 9),
        describe_order(settings_of(packing=True, packing_window=7), 1, 8),
        describe_order(settings_of(packing=True, gradient_accumulation_steps=2), 1, 8),
        one,
    ):
        assert other != packed


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.integers(1, 4),
            st.integers(1, 3),
            st.sampled_from([False, True]),
            st.booleans(),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_the_rows_that_are_left_are_those_that_no_window_had(parts: list[Any]) -> None:
    """Each part is walked by hand as the stream would have walked it."""
    left = np.arange(len(LENGTHS))
    earlier: list[dict[str, Any]] = []
    for size, accumulation, packing, group, windows in parts:
        names = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "packing": packing,
            "packing_window": 6,
            "group_by_length": group,
        }
        chosen = settings_of(**names)
        order = RemainingBatches(left, build_order([LENGTHS[row] for row in left], chosen, 3, 8))
        batches = list(order.batches(1, 0))
        assert len(batches) == order.num_batches(1)
        assert sorted(row for batch in batches for row in batch) == left.tolist()
        seen = {row for batch in batches[: windows * accumulation] for row in batch}
        left = np.array([row for row in left if row not in seen], dtype=np.int64)
        earlier.append({"order": describe_order(chosen, 3, 8), "windows": windows})
    assert rows_left(LENGTHS, 1, earlier).tolist() == left.tolist()
