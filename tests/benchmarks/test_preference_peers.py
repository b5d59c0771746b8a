"""TRL's tokens are counted once a step, and are luthier's."""

from __future__ import annotations

import pytest
import torch
from preference_peers import PolicyCounter, check_tokens


class Echo(torch.nn.Module):
    """Takes a batch by name, as a language model does."""

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        return batch["input_ids"]


def test_passes_of_the_reference_are_not_counted() -> None:
    counter, model = PolicyCounter(), Echo()
    counter.on_train_begin(model=model)
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 5, 0]])
    batch = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": torch.tensor([[-100, -100, 3, 4], [-100, -100, 5, -100]]),
    }
    model(**batch)
    with torch.no_grad():
        model(**batch)
    counter.on_step_end()
    assert [(step["tokens"], step["supervised"]) for step in counter.steps] == [(7, 3)]


def test_other_ids_end_the_run() -> None:
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    check_tokens([pair], [pair])
    with pytest.raises(SystemExit, match="pair 1: TRL's tokens of chosen aren't luthier's"):
        check_tokens([pair, {**pair, "chosen_ids": [4]}], [pair, pair])
