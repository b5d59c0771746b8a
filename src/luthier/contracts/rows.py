"""A prepared row: what the dataset leaves on disk, and what batches are made of."""

from __future__ import annotations

from typing import NotRequired, TypedDict

IGNORE_INDEX = -100
"""The label of a token that carries no loss (torch's `cross_entropy` default)."""


class PreparedRow(TypedDict):
    """One tokenised row. All sequences have the same length L.

    Labels are ALIGNED with the inputs: `labels[t]` is `input_ids[t]` or -100. The shift by one
    happens once, in the loss (`objectives/causal_lm.py`). `labels[0]` is always -100, for no
    position predicts the first token.
    """

    input_ids: list[int]
    labels: list[int]
    loss_weights: NotRequired[list[float]]
    position_ids: NotRequired[list[int]]
