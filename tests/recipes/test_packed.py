"""Packed runs: the same steps as padded ones, and what becomes of models that can't."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BloomConfig

from luthier.core.errors import ModelError
from luthier.recipes import packed
from luthier.recipes.packed import batch_inputs, with_possible_packing


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_rows_without_padding_take_the_steps_of_padded_rows(small_run: Any, finetuning_type: str):
    runs = [
        small_run.train(
            *("--packing", packing, "--finetuning_type", finetuning_type),
            output_dir=str(small_run.folder / packing),
        )
        for packing in ("false", "padding_free")
    ]
    padded, flat = (run.losses() for run in runs)
    assert len(padded) == 8
    assert flat == pytest.approx(padded, rel=1e-5)
    ends = [run.result.last_eval["eval_loss"] for run in runs]
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)


def test_filled_rows_train_every_conversation(small_run: Any):
    run = small_run.train("--packing", "true", "--cutoff_len", "64")
    assert run.result.finished
    assert run.result.progress.num_rows_seen == 26
    assert run.result.progress.epoch == 2


def test_a_model_whose_rows_can_not_be_packed_is_trained_padded(
    small_run: Any, monkeypatch: pytest.MonkeyPatch
):
    config = small_run.config("--packing", "true")
    assert with_possible_packing(config) == (config, None)
    monkeypatch.setattr(packed, "read_config", lambda _settings: BloomConfig())
    changed, notice = with_possible_packing(config)
    assert changed.batches.packing is False
    assert notice is not None
    assert str(notice).startswith("packing: true -> false (")


def test_a_model_that_mixes_documents_up_is_refused(
    small_run: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packed, "check_packed", lambda _model: "packed documents see each other")
    with pytest.raises(ModelError, match=r"packed documents see each other(.|\n)*packing: false"):
        packed.refuse_unpackable(torch.nn.Linear(1, 1), small_run.config("--packing", "true"))


def test_what_a_model_is_given_of_a_batch():
    ids = torch.tensor([[1, 2, 3]])
    padded = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    assert batch_inputs(padded).keys() == {"input_ids", "attention_mask"}
    flat = {
        "input_ids": ids,
        "labels": ids,
        "position_ids": torch.tensor([[0, 0, 1]]),
        "cu_seqlens": torch.tensor([0, 1, 3], dtype=torch.int32),
    }
    assert batch_inputs(flat)["max_length_q"] == 2
