"""Rows laid end to end: nothing lost, segments known, and the same loss as rows by themselves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from luthier.batches.collate import CausalLMCollator, causal_lm_collate
from luthier.batches.flat import FlatCollator, build_collator, flat_collate
from luthier.batches.settings import BatchSettings
from luthier.objectives.sft import SupervisedFineTuning

torch.set_num_threads(1)
ROWS = [
    {"input_ids": [5, 6, 7, 2], "labels": [-100, -100, 7, 2]},
    {"input_ids": [8, 2], "labels": [-100, 2]},
]


def test_the_layout() -> None:
    batch = flat_collate(ROWS)
    assert list(batch) == ["input_ids", "labels", "position_ids", "cu_seqlens", "num_rows"]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2, 8, 2]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2, -100, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch["cu_seqlens"].tolist() == [0, 4, 6]
    assert batch["num_rows"].item() == 2
    assert batch["num_rows"].shape == ()
    assert {name: t.dtype for name, t in batch.items() if t.dtype != torch.int64} == {
        "cu_seqlens": torch.int32
    }


def test_there_is_no_mask_that_would_let_segments_see_each_other() -> None:
    assert "attention_mask" not in flat_collate(ROWS)


def test_weights_stand_with_their_tokens() -> None:
    rows = [
        {**ROWS[0], "loss_weights": [0.0, 0.0, 0.5, 2.0]},
        {**ROWS[1], "loss_weights": [0.0, 1.0]},
    ]
    weights = flat_collate(rows)["loss_weights"]
    assert weights.tolist() == [[0.0, 0.0, 0.5, 2.0, 0.0, 1.0]]
    assert weights.dtype == torch.float32


def test_a_row_may_hold_segments_of_its_own() -> None:
    rows = [
        {"input_ids": [5, 2, 6, 2], "labels": [-100, 2, -100, 2], "position_ids": [0, 1, 0, 1]},
        {**ROWS[1], "position_ids": [0, 1]},
    ]
    batch = flat_collate(rows)
    assert batch["cu_seqlens"].tolist() == [0, 2, 4, 6]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 0, 1]]
    assert batch["num_rows"].item() == 2


def test_positions_that_go_on_from_the_row_before_are_refused() -> None:
    with pytest.raises(ValueError, match="the position_ids of a row must start at 0"):
        flat_collate([{**ROWS[1], "position_ids": [4, 5]}])


def test_a_row_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="a row without tokens can't be a segment"):
        flat_collate([*ROWS, {"input_ids": [], "labels": []}])


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch needs at least one row"):
        flat_collate([])


def test_weights_of_only_some_rows_are_not_dropped_in_silence() -> None:
    with pytest.raises(ValueError, match="all rows of a batch have loss_weights and position_ids"):
        flat_collate([{**ROWS[0], "loss_weights": [1.0] * 4}, ROWS[1]])


def test_a_first_label_that_the_row_before_would_predict_is_found() -> None:
    with pytest.raises(AssertionError, match="a segment's first label must be -100"):
        flat_collate([ROWS[0], {"input_ids": [8, 2], "labels": [8, 2]}])


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=8))
def test_segments_positions_and_tokens_agree(rows: list[list[int]]) -> None:
    labels = [[-100, *ids[1:]] for ids in rows]
    batch = flat_collate(
        [{"input_ids": i, "labels": l} for i, l in zip(rows, labels, strict=True)]  # noqa: E741
    )
    ends = batch["cu_seqlens"].tolist()
    segments = list(pairwise(ends))
    assert batch["input_ids"].shape == (1, sum(map(len, rows)))
    assert [batch["input_ids"][0, a:b].tolist() for a, b in segments] == rows
    assert [batch["labels"][0, a:b].tolist() for a, b in segments] == labels
    assert [batch["position_ids"][0, a:b].tolist() for a, b in segments] == [
        list(range(len(row))) for row in rows
    ]
    assert batch["num_rows"].item() == len(rows)


@pytest.mark.parametrize("workers", [0, 1])
def test_is_a_collate_fn(workers: int) -> None:
    loader: Any = DataLoader(
        ROWS,  # pyright: ignore[reportArgumentType]
        batch_size=2,
        collate_fn=FlatCollator(),
        num_workers=workers,
    )
    (batch,) = list(loader)
    assert batch["cu_seqlens"].tolist() == [0, 4, 6]


@pytest.mark.parametrize("packing", [True, "padding_free"])
def test_the_settings_choose_the_collator(packing: Any) -> None:
    assert build_collator(BatchSettings(packing=packing), pad_id=3) == FlatCollator()
    assert build_collator(BatchSettings(packing=False), pad_id=3) == CausalLMCollator(3)


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def random_rows(count: int, *, weighted: bool) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(1)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        length = int(torch.randint(2, 14, (), generator=random))
        ids = torch.randint(0, 32, (length,), generator=random).tolist()
        row: dict[str, Any] = {"input_ids": ids, "labels": [-100, *ids[1:]]}
        if weighted:
            row["loss_weights"] = torch.rand(length, generator=random).tolist()
        rows.append(row)
    return rows


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_and_its_gradient_are_those_of_padded_rows(model: Any, weighted: bool) -> None:
    rows, objective = random_rows(9, weighted=weighted), SupervisedFineTuning()
    gradients: list[torch.Tensor] = []
    sums = []
    for batch in (causal_lm_collate(rows, pad_id=0), flat_collate(rows)):
        model.zero_grad()
        loss = objective(model, batch)
        loss.total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert loss.num_correct is not None
        counts = (int(loss.num_tokens), int(loss.num_correct))
        sums.append((loss.total.item(), loss.weight.item(), *counts))
        assert objective.weight(batch).item() == pytest.approx(loss.weight.item())
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_no_segment_sees_another(model: Any) -> None:
    rows = random_rows(3, weighted=False)
    other = [{**rows[0], "input_ids": [31 - token for token in rows[0]["input_ids"]]}, *rows[1:]]
    first = len(rows[0]["input_ids"])
    logits = []
    for batch in (flat_collate(rows), flat_collate(other)):
        inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
        with torch.no_grad():
            logits.append(model(**inputs, use_cache=False).logits[0])
    torch.testing.assert_close(logits[0][first:], logits[1][first:])
    assert not torch.allclose(logits[0][:first], logits[1][:first])
