"""The label that carries no loss is torch's."""

from __future__ import annotations

from typing import NotRequired, get_origin, get_type_hints

import pytest
import torch

from luthier.contracts.rows import IGNORE_INDEX, PreparedPair, PreparedRow


def test_ignore_index_is_cross_entropys_default() -> None:
    logits = torch.randn(2, 5)
    targets = torch.tensor([3, IGNORE_INDEX])
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    alone = torch.nn.functional.cross_entropy(logits[:1], targets[:1], reduction="sum")
    assert torch.equal(loss, alone)


@pytest.mark.parametrize(
    ("row", "needed", "optional"),
    [
        (PreparedRow, {"input_ids", "labels"}, {"loss_weights", "position_ids"}),
        (
            PreparedPair,
            {"input_ids", "labels", "prompt_length", "chosen_length"},
            {
                *("weight", "desirable", "margin", "reference_chosen", "reference_rejected"),
                *("reference_chosen_shared", "reference_rejected_shared"),
            },
        ),
    ],
)
def test_what_a_row_needs_and_what_it_may_have(
    row: type, needed: set[str], optional: set[str]
) -> None:
    hints = get_type_hints(row, include_extras=True)
    found = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    assert (hints.keys() - found, found) == (needed, optional)
