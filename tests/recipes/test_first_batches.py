"""Which rows adapters begin from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from luthier.core.errors import SettingsError
from luthier.recipes.data import prepare_data
from luthier.recipes.first_batches import AUTO_ROWS, first_batches


def test_only_eva_looks_at_rows(small_run: Any, recorder: Any):
    for settings in ({}, {"finetuning_type": "full"}, {"lora_init": "pissa"}):
        config = small_run.config(**settings)
        assert first_batches(config, prepare_data(config, recorder)) == []


def test_the_seed_draws_the_rows(small_run: Any, recorder: Any):
    def drawn(**settings: Any) -> list[dict[str, torch.Tensor]]:
        config = small_run.config(lora_init="eva", lora_rank=4, **settings)
        return first_batches(config, prepare_data(config, recorder))

    batches = drawn()
    assert [len(b["input_ids"]) for b in batches] == [2] * 6 + [1]
    assert all(torch.equal(x["labels"], y["labels"]) for x, y in zip(batches, drawn(), strict=True))
    pairs = zip(batches, drawn(seed=1), strict=True)
    assert any(not torch.equal(x["labels"], y["labels"]) for x, y in pairs)
    auto = drawn(per_device_train_batch_size="auto", gradient_accumulation_steps=None)
    assert len(auto[0]["input_ids"]) == AUTO_ROWS


def test_too_few_tokens_for_so_many_ranks(small_run: Any, recorder: Any):
    config = small_run.config(lora_init="eva", lora_rank=999)
    with pytest.raises(SettingsError, match="wants 999 supervised tokens in a batch"):
        first_batches(config, prepare_data(config, recorder))
