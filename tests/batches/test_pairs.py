"""Pairs as batches: nothing lost, positions and places right, the same pairs in either layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from luthier.batches.cutting import split_batch
from luthier.batches.pairs import (
    SeparatePairCollator,
    SharedPairCollator,
    build_pair_collator,
    pair_capacity,
    separate_pair_collate,
    shared_pair_collate,
)
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import BatchStream, evaluation_batches
from luthier.contracts.counting import (
    count_positions,
    count_rows,
    count_supervised,
    count_tokens,
)

Lengths = list[tuple[int, int, int]]
LENGTHS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=7
)


def make_pairs(lengths: Lengths) -> list[dict[str, Any]]:
    """Make pairs whose tokens are all different, so that none can stand for another."""
    pairs, first = [], 1
    for number, (prompt, chosen, rejected) in enumerate(lengths):
        ids = list(range(first, first + prompt + chosen + rejected))
        labels = [-100] * prompt + ids[prompt:]
        if prompt == 0:
            labels[0] = labels[chosen] = -100  # no position predicts the first token of a row
        pairs.append(
            {
                "input_ids": ids,
                "labels": labels,
                "prompt_length": prompt,
                "chosen_length": chosen,
                "weight": number / 2,
                "desirable": number % 2 == 0,
                "reference_chosen": -1.5 * number,
                "reference_rejected": -2.5 * number,
            }
        )
        first += len(ids)
    return pairs


def pairs_in(batch: dict[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """Take a batch of either layout apart into the pairs that it was made of."""
    names = ("weight", "desirable", "reference_chosen", "reference_rejected")
    for number in range(int(batch["num_rows"])):
        if "pairs" in batch:
            start, prompt, chosen, end = batch["pairs"][number].tolist()
            ids, labels = (batch[name][0, start:end].tolist() for name in ("input_ids", "labels"))
            prompt, chosen = prompt - start, chosen - start
        else:
            kept = batch["attention_mask"][2 * number : 2 * number + 2].bool()
            one, other = (batch["input_ids"][2 * number + i][kept[i]].tolist() for i in (0, 1))
            labels = [batch["labels"][2 * number + i][kept[i]].tolist() for i in (0, 1)]
            prompt = sum(a == b for a, b in zip(one, other, strict=False))
            assert labels[0][:prompt] == labels[1][:prompt]
            ids, labels, chosen = one + other[prompt:], labels[0] + labels[1][prompt:], len(one)
        yield {
            "input_ids": ids,
            "labels": labels,
            "prompt_length": prompt,
            "chosen_length": chosen - prompt,
            **{name: batch[name][number].item() for name in names},
        }


def test_the_shared_layout() -> None:
    batch = shared_pair_collate(make_pairs([(2, 1, 3), (0, 2, 1)]))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch["labels"].tolist() == [[-100, -100, 3, 4, 5, 6, -100, 8, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 2, 3, 4, 0, 1, 0]]
    assert batch["pairs"].tolist() == [[0, 2, 3, 6], [6, 6, 8, 9]]
    assert batch["num_rows"].item() == 2
    assert "attention_mask" not in batch, "a mask would let answers see each other"
    types = {name: t.dtype for name, t in batch.items() if t.dtype != torch.int64}
    assert types == {
        "pairs": torch.int32,
        "weight": torch.float32,
        "desirable": torch.bool,
        "reference_chosen": torch.float32,
        "reference_rejected": torch.float32,
    }


def test_the_separate_layout() -> None:
    batch = separate_pair_collate(make_pairs([(2, 1, 3)]), pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0], [1, 2, 4, 5, 6]]
    assert batch["labels"].tolist() == [[-100, -100, 3, -100, -100], [-100, -100, 4, 5, 6]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["num_rows"].item() == 1


def test_fields_that_no_pair_has_are_not_made_up() -> None:
    pairs = [{name: pair[name] for name in list(pair)[:4]} for pair in make_pairs([(2, 1, 1)])]
    assert list(shared_pair_collate(pairs))[4:] == ["num_rows"]
    assert list(separate_pair_collate(pairs, pad_id=0))[3:] == ["num_rows"]


@given(LENGTHS)
def test_no_token_is_lost_and_positions_are_those_of_rows_apart(lengths: Lengths) -> None:
    pairs = make_pairs(lengths)
    shared, separate = shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0)
    assert list(pairs_in(shared)) == list(pairs_in(separate)) == pairs
    for (prompt, chosen, rejected), bounds in zip(lengths, shared["pairs"].tolist(), strict=True):
        positions = shared["position_ids"][0, bounds[0] : bounds[3]].tolist()
        assert positions[: prompt + chosen] == list(range(prompt + chosen))
        assert positions[prompt + chosen :] == list(range(prompt, prompt + rejected))


@given(LENGTHS)
def test_counts(lengths: Lengths) -> None:
    pairs = make_pairs(lengths)
    shared, separate = shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0)
    num_supervised = sum(label != -100 for pair in pairs for label in pair["labels"])
    for batch in (shared, separate):
        assert count_rows(batch) == len(pairs)
        assert count_supervised(batch) == num_supervised
    num_shared = sum(map(sum, lengths))
    assert count_tokens(shared) == count_positions(shared) == num_shared
    assert count_tokens(separate) == num_shared + sum(prompt for prompt, *_ in lengths)


@given(LENGTHS, st.integers(1, 90))
def test_a_cut_parts_no_pair(lengths: Lengths, limit: int) -> None:
    pairs = make_pairs(lengths)
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, pad_id=0)):
        parts = split_batch(batch, limit)
        assert [pair for part in parts for pair in pairs_in(part)] == pairs
        assert all(part.keys() == batch.keys() for part in parts)
        for part in parts:
            assert {name: t.dtype for name, t in part.items()} == {
                name: t.dtype for name, t in batch.items()
            }
            assert count_positions(part) <= limit or count_rows(part) == 1
            if "pairs" in part:
                assert part["pairs"][0, 0] == 0
                assert part["pairs"][-1, 3] == part["input_ids"].shape[1]


def test_as_few_parts_as_will_do() -> None:
    pairs = make_pairs([(2, 1, 1)] * 6)
    assert [count_rows(p) for p in split_batch(shared_pair_collate(pairs), 8)] == [2, 2, 2]
    assert [count_rows(p) for p in split_batch(separate_pair_collate(pairs, 0), 13)] == [2, 2, 2]


def test_a_tensor_that_belongs_to_neither_pairs_nor_tokens_is_refused() -> None:
    pairs = make_pairs([(2, 1, 1)] * 3)
    for batch in (shared_pair_collate(pairs), separate_pair_collate(pairs, 0)):
        with pytest.raises(ValueError, match=r"odd of shape \(5,\) can't be cut"):
            split_batch(batch | {"odd": torch.zeros(5)}, 4)


@pytest.mark.parametrize(
    "settings",
    [
        BatchSettings(packing=True, packing_window=4),
        BatchSettings(packing="padding_free", per_device_train_batch_size=3),
        BatchSettings(packing=False, per_device_train_batch_size=2, group_by_length=True),
    ],
    ids=["filled", "flat", "padded"],
)
def test_the_orders_of_rows_serve_pairs(settings: BatchSettings) -> None:
    pairs = make_pairs([(3, 2, 4), (1, 8, 2), (5, 1, 1), (2, 2, 2), (4, 5, 6), (1, 1, 1)])
    lengths = [len(pair["input_ids"]) for pair in pairs]
    collate = build_pair_collator(settings, pad_id=0)
    stream = BatchStream(pairs, lengths, collate, settings, seed=3, capacity=pair_capacity(9))
    windows = stream.windows()
    batches = [batch for _ in range(stream.windows_per_epoch()) for batch in next(windows)]
    if settings.packing is True:
        assert max(count_positions(batch) for batch in batches) <= pair_capacity(9)
        assert len(batches) < len(pairs)
    for found in (batches, evaluation_batches(pairs, lengths, collate, settings)):
        seen = [pair for batch in found for pair in pairs_in(batch)]
        assert sorted(seen, key=lambda pair: pair["input_ids"]) == pairs


@pytest.mark.parametrize("workers", [0, 1])
def test_the_settings_choose_the_collator(workers: int) -> None:
    shared = build_pair_collator(BatchSettings(packing=True), pad_id=3)
    separate = build_pair_collator(BatchSettings(packing=False), pad_id=3)
    assert (shared, separate) == (SharedPairCollator(), SeparatePairCollator(3))
    pairs: Any = make_pairs([(2, 1, 1)])
    for collate in (shared, separate):
        (batch,) = list(DataLoader(pairs, collate_fn=collate, num_workers=workers))
        assert list(pairs_in(batch)) == pairs


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_length": -1},
        {"chosen_length": 0},
        {"chosen_length": 4},
        {"labels": [1, 2, 3]},
    ],
)
def test_lengths_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    pairs = [make_pairs([(2, 2, 2)])[0] | change]
    with pytest.raises(ValueError, match=r"a pair of 6 tokens and . labels can't have a prompt of"):
        shared_pair_collate(pairs)
    with pytest.raises(ValueError, match="each answer needs a token"):
        separate_pair_collate(pairs, pad_id=0)


def test_labels_that_no_position_could_predict_are_found() -> None:
    (pair,) = make_pairs([(0, 2, 2)])
    with pytest.raises(AssertionError, match="no position predicts the first token of an answer"):
        shared_pair_collate([pair | {"labels": pair["input_ids"]}])
    (pair,) = make_pairs([(2, 2, 2)])
    with pytest.raises(AssertionError, match="the prompt of a pair carries no labels"):
        shared_pair_collate([pair | {"labels": pair["input_ids"]}])


def test_a_batch_of_nothing_and_fields_of_only_some_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch needs at least one pair"):
        shared_pair_collate([])
    pairs = make_pairs([(1, 1, 1), (1, 1, 1)])
    del pairs[1]["reference_chosen"]
    with pytest.raises(ValueError, match="all pairs of a batch have reference_chosen, or none"):
        separate_pair_collate(pairs, pad_id=0)
