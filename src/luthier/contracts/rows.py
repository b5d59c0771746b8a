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


class PreparedPair(TypedDict):
    """Two answers to one prompt: `input_ids` is prompt | chosen | rejected.

    The chosen answer has `chosen_length` tokens behind the `prompt_length` of the prompt, the
    rejected one has the rest. Labels are aligned with the inputs and -100 in the prompt. The first
    label of the rejected answer is predicted by the LAST token of the prompt. Where the two answers
    have prompts of different tokens, `prompt_length` ends where these part, and either answer
    begins with the rest of its prompt, labels -100.

    For unpaired feedback (KTO) `chosen` is the judged answer, `desirable` the verdict, and
    `rejected` is the answer to another prompt, which the estimate of KL needs.

    `margin` is by how much a reward model should find the chosen answer better.

    `reference_...` is what the reference gives: log p of each answer, and of as many of its tokens
    as the pair's shorter answer has.
    """

    input_ids: list[int]
    labels: list[int]
    prompt_length: int
    chosen_length: int
    weight: NotRequired[float]
    desirable: NotRequired[bool]
    margin: NotRequired[float]
    reference_chosen: NotRequired[float]
    reference_rejected: NotRequired[float]
    reference_chosen_shared: NotRequired[float]
    reference_rejected_shared: NotRequired[float]
