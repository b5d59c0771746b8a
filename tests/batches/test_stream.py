"""Windows of batches: nothing lost at the end of an epoch, and the middle of one can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.batches.collate import CausalLMCollator
from luthier.batches.sampling import epoch_batches
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import BatchStream, evaluation_batches, make_loader
from luthier.core.errors import DataError

torch.set_num_threads(1)
COLLATE = CausalLMCollator(pad_id=0)


def make_rows(count: int) -> list[dict[str, list[int]]]:
    """Row i starts with the token i + 1 and is 1 to 5 tokens long."""
    return [
        {"input_ids": [i + 1] * (1 + i % 5), "labels": [-100] * (1 + i % 5)} for i in range(count)
    ]


def make_stream(count: int = 11, seed: int = 0, **names: Any) -> BatchStream:
    rows = make_rows(count)
    lengths = [len(row["input_ids"]) for row in rows]
    return BatchStream(rows, lengths, COLLATE, BatchSettings(**names), seed)


def names_of(window: list[dict[str, torch.Tensor]]) -> list[list[int]]:
    return [(batch["input_ids"][:, 0] - 1).tolist() for batch in window]


def take(stream: BatchStream, count: int) -> list[list[list[int]]]:
    return [names_of(window) for window in islice(stream.windows(), count)]


def test_the_ragged_last_window_is_not_lost() -> None:
    stream = make_stream(11, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert stream.windows_per_epoch() == 2
    first = take(stream, 2)
    assert [[len(batch) for batch in window] for window in first] == [[2, 2, 2, 2], [2, 1]]
    assert sorted(chain(*chain(*first))) == list(range(11))
    assert list(chain(*first)) == epoch_batches([1] * 11, 2, 0, 0)


def test_epochs_follow_each_other_each_in_its_own_order() -> None:
    stream = make_stream(7, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    windows = take(stream, 6)
    epochs = [list(chain(*windows[start : start + 2])) for start in (0, 2, 4)]
    assert epochs == [epoch_batches([1] * 7, 2, 0, epoch) for epoch in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 14),
    batch=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    seed=st.integers(0, 9),
    cut=st.integers(0, 12),
    group=st.booleans(),
)
def test_resuming_anywhere_gives_the_same_windows(
    count: int, batch: int, accumulation: int, seed: int, cut: int, group: bool
) -> None:
    names = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "group_by_length": group,
    }
    straight = make_stream(count, seed, **names)
    expected = take(straight, cut + 6)
    stopped = make_stream(count, seed, **names)
    assert take(stopped, cut) == expected[:cut]
    resumed = make_stream(count, seed, **names)
    resumed.set_state(json.loads(json.dumps(stopped.get_state())))
    assert take(resumed, 6) == expected[cut:]


def test_the_state_counts_windows_that_were_handed_out() -> None:
    stream = make_stream(5, per_device_train_batch_size=2)
    assert stream.get_state() == {"epoch": 0, "window": 0}
    windows: Iterator[Any] = stream.windows()
    states = []
    for _ in range(4):
        next(windows)
        states.append(tuple(stream.get_state().values()))
    assert states == [(0, 1), (0, 2), (0, 3), (1, 1)]


def test_worker_processes_change_nothing() -> None:
    names: Any = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    here = list(islice(make_stream(11, **names).windows(), 4))
    there = list(islice(make_stream(11, **names, dataloader_num_workers=2).windows(), 4))
    for one, other in zip(chain(*here), chain(*there), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_generator_alone(workers: int) -> None:
    """An iteration that drew from it would change dropout after an evaluation or a resume."""
    stream = make_stream(5, dataloader_num_workers=workers)
    before = torch.get_rng_state()
    take(stream, 7)
    rows = make_rows(5)
    list(evaluation_batches(rows, [1, 2, 3, 4, 5], COLLATE, BatchSettings()))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_rows_are_an_error_and_no_endless_loop() -> None:
    with pytest.raises(DataError, match="there are no rows to train on"):
        make_stream(0)


def test_reads_a_datasets_dataset() -> None:
    import datasets

    rows = datasets.Dataset.from_list(make_rows(5))
    stream = BatchStream(rows, [1, 2, 3, 4, 5], COLLATE, BatchSettings(), seed=0)
    assert take(stream, 5) == take(make_stream(5), 5)


def test_make_loader_takes_given_batches() -> None:
    loader = make_loader(make_rows(4), [[3, 0], [2]], COLLATE, BatchSettings())
    assert [(batch["input_ids"][:, 0] - 1).tolist() for batch in loader] == [[3, 0], [2]]


def test_evaluation_starts_with_the_longest_rows() -> None:
    rows = make_rows(8)
    lengths = [len(row["input_ids"]) for row in rows]
    settings = BatchSettings(per_device_eval_batch_size=3)
    batches = list(evaluation_batches(rows, lengths, COLLATE, settings))
    shown = [(batch["input_ids"][:, 0] - 1).tolist() for batch in batches]
    assert shown == [[4, 3, 2], [7, 1, 6], [0, 5]]
