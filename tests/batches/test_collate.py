"""Padding: shapes, masks, and the two loaders that use it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from luthier.batches.collate import CausalLMCollator, causal_lm_collate

ROWS = [
    {"input_ids": [5, 6, 7, 2], "labels": [-100, -100, 7, 2]},
    {"input_ids": [8, 2], "labels": [-100, 2]},
]


def test_the_lectures_shape() -> None:
    batch = causal_lm_collate(ROWS, pad_id=0)
    assert list(batch) == ["input_ids", "labels", "attention_mask"]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [8, 2, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2], [-100, 2, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert {t.dtype for t in batch.values()} == {torch.int64}


def test_pad_that_is_the_end_token_does_no_harm() -> None:
    batch = causal_lm_collate(ROWS, pad_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [8, 2, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2], [-100, 2, -100, -100]]


def test_label_pad_id_can_be_chosen() -> None:
    assert causal_lm_collate(ROWS, 0, label_pad_id=-1)["labels"].tolist()[1] == [-100, 2, -1, -1]


def test_weights_and_positions_are_padded_with_zeros() -> None:
    rows = [
        {**ROWS[0], "loss_weights": [0.0, 0.0, 0.5, 2.0], "position_ids": [0, 1, 0, 1]},
        {**ROWS[1], "loss_weights": [0.0, 1.0], "position_ids": [0, 1]},
    ]
    batch = causal_lm_collate(rows, pad_id=0)
    assert batch["loss_weights"].tolist() == [[0.0, 0.0, 0.5, 2.0], [0.0, 1.0, 0.0, 0.0]]
    assert batch["loss_weights"].dtype == torch.float32
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert batch["position_ids"].dtype == torch.int64


def test_read_only_arrays_are_as_good_as_lists() -> None:
    rows = [{name: np.array(row[name], dtype=np.int32) for name in row} for row in ROWS]
    for array in (array for row in rows for array in row.values()):
        array.flags.writeable = False
    batch = causal_lm_collate(rows, pad_id=9)
    for name, tensor in causal_lm_collate(ROWS, pad_id=9).items():
        assert torch.equal(batch[name], tensor)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch needs at least one row"):
        causal_lm_collate([], pad_id=0)


@pytest.mark.parametrize("name", ["labels", "loss_weights", "position_ids"])
def test_sequences_of_different_length_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} and input_ids of a row must have the same"):
        causal_lm_collate([{**ROWS[1], name: [1, 1, 1]}], pad_id=0)


@pytest.mark.parametrize("first", [0, 1])
def test_weights_of_only_some_rows_are_not_dropped_in_silence(first: int) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
    rows[first]["loss_weights"] = [1.0] * len(rows[first]["input_ids"])
    with pytest.raises(ValueError, match="all rows of a batch have loss_weights and position_ids"):
        causal_lm_collate(rows, pad_id=0)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=6))
def test_every_token_survives_and_nothing_is_added(rows: list[list[int]]) -> None:
    batch = causal_lm_collate([{"input_ids": r, "labels": r} for r in rows], pad_id=3)
    real = batch["attention_mask"].bool()
    assert [ids[m].tolist() for ids, m in zip(batch["input_ids"], real, strict=True)] == rows
    assert [ids[m].tolist() for ids, m in zip(batch["labels"], real, strict=True)] == rows
    assert (batch["labels"][~real] == -100).all()
    assert (batch["input_ids"][~real] == 3).all()
    assert batch["input_ids"].shape[1] == max(map(len, rows))


@pytest.mark.parametrize("workers", [0, 1])
def test_is_a_collate_fn(workers: int) -> None:
    loader: Any = DataLoader(
        ROWS,  # pyright: ignore[reportArgumentType]
        batch_size=2,
        collate_fn=CausalLMCollator(pad_id=0),
        num_workers=workers,
    )
    (batch,) = list(loader)
    assert batch["labels"].tolist() == [[-100, -100, 7, 2], [-100, 2, -100, -100]]


def test_is_the_trainers_data_collator(tmp_path: Path) -> None:
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    rows = datasets.Dataset.from_list([{**row, "origin": "a.json:1"} for row in ROWS])
    arguments: Any = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
    trainer = Trainer(
        LlamaForCausalLM(config),
        TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, num_train_epochs=1, **arguments
        ),
        train_dataset=rows,
        data_collator=CausalLMCollator(pad_id=0),
    )
    (batch,) = list(trainer.get_train_dataloader())
    expected = causal_lm_collate(ROWS, pad_id=0)
    order = [0, 1] if batch["input_ids"][0, 0] == 5 else [1, 0]
    assert {name: t[order].tolist() for name, t in batch.items()} == {
        name: t.tolist() for name, t in expected.items()
    }
    assert trainer.train().global_step == 1
