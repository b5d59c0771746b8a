"""The label that carries no loss is torch's."""

from __future__ import annotations

from typing import NotRequired, get_origin, get_type_hints

import torch

from luthier.contracts.rows import IGNORE_INDEX, PreparedRow


def test_ignore_index_is_cross_entropys_default() -> None:
    logits = torch.randn(2, 5)
    targets = torch.tensor([3, IGNORE_INDEX])
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    alone = torch.nn.functional.cross_entropy(logits[:1], targets[:1], reduction="sum")
    assert torch.equal(loss, alone)


def test_weights_and_positions_are_optional() -> None:
    hints = get_type_hints(PreparedRow, include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    assert hints.keys() - optional == {"input_ids", "labels"}
    assert optional == {"loss_weights", "position_ids"}
