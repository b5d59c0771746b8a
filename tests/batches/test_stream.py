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
from luthier.batches.flat import FlatCollator, build_collator
from luthier.batches.loading import make_loader
from luthier.batches.packing import PackedBatches
from luthier.batches.sampling import epoch_batches
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import (
    BatchStream,
    evaluation_batches,
    evaluation_token_budget,
    longest_batch,
)
from luthier.core.errors import DataError

torch.set_num_threads(1)
COLLATE = CausalLMCollator(pad_id=0)
CAPACITY = 8


def make_rows(count: int) -> list[dict[str, list[int]]]:
    """Row i starts with the token i + 1 and is 1 to 5 tokens long."""
    return [
        {"input_ids": [i + 1] * (1 + i % 5), "labels": [-100] * (1 + i % 5)} for i in range(count)
    ]


def make_stream(count: int = 11, seed: int = 0, **names: Any) -> BatchStream:
    rows = make_rows(count)
    lengths = [len(row["input_ids"]) for row in rows]
    settings = BatchSettings(**{"packing": False, **names})
    collate = build_collator(settings, pad_id=0)
    return BatchStream(rows, lengths, collate, settings, seed, capacity=CAPACITY)


def names_of(window: list[dict[str, torch.Tensor]]) -> list[list[int]]:
    return [names_of_rows(batch) for batch in window]


def names_of_rows(batch: dict[str, torch.Tensor]) -> list[int]:
    ids = batch["input_ids"]
    first = ids[0, batch["cu_seqlens"][:-1]] if "cu_seqlens" in batch else ids[:, 0]
    return (first - 1).tolist()


def position(stream: BatchStream) -> tuple[int, int]:
    state = stream.get_state()
    return state["epoch"], state["window"]


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
    packing=st.sampled_from([False, True, "padding_free"]),
    packing_window=st.integers(1, 16),
)
def test_resuming_anywhere_gives_the_same_windows(
    count: int,
    batch: int,
    accumulation: int,
    seed: int,
    cut: int,
    group: bool,
    packing: Any,
    packing_window: int,
) -> None:
    names = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "group_by_length": group,
        "packing": packing,
        "packing_window": packing_window,
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
    assert position(stream) == (0, 0)
    windows: Iterator[Any] = stream.windows()
    states = []
    for _ in range(4):
        next(windows)
        states.append(position(stream))
    assert states == [(0, 1), (0, 2), (0, 3), (1, 1)]


@pytest.mark.parametrize("packing", [False, True, "padding_free"])
def test_worker_processes_change_nothing(packing: Any) -> None:
    names: Any = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    names["packing"] = packing
    here = list(islice(make_stream(11, **names).windows(), 4))
    there = list(islice(make_stream(11, **names, dataloader_num_workers=2).windows(), 4))
    for one, other in zip(chain(*here), chain(*there), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_batches_made_ahead_are_not_in_the_state() -> None:
    stream = make_stream(60, packing=True, packing_window=16, dataloader_num_workers=2)
    windows = stream.windows()
    expected = [names_of(next(windows)) for _ in range(6)]
    stopped = make_stream(60, packing=True, packing_window=16, dataloader_num_workers=2)
    windows = stopped.windows()
    assert [names_of(next(windows)) for _ in range(3)] == expected[:3]
    assert position(stopped) == (0, 3)
    resumed = make_stream(60, packing=True, packing_window=16)
    resumed.set_state(stopped.get_state())
    assert take(resumed, 3) == expected[3:]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_generator_alone(workers: int) -> None:
    """An iteration that drew from it would change dropout after an evaluation or a resume."""
    stream = make_stream(5, dataloader_num_workers=workers)
    before = torch.get_rng_state()
    take(stream, 7)
    rows = make_rows(5)
    list(evaluation_batches(rows, [1, 2, 3, 4, 5], COLLATE, BatchSettings(packing=False)))
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
    settings = BatchSettings(per_device_eval_batch_size=3, packing=False)
    batches = list(evaluation_batches(rows, lengths, COLLATE, settings))
    shown = [(batch["input_ids"][:, 0] - 1).tolist() for batch in batches]
    assert shown == [[4, 3, 2], [7, 1, 6], [0, 5]]


@pytest.mark.parametrize("packing", [False, True, "padding_free"])
def test_auto_hands_out_the_rows_of_a_step_as_one_batch(packing: Any) -> None:
    auto: Any = {"per_device_train_batch_size": "auto", "train_batch_size": 4}
    auto = make_stream(20, packing=packing, **auto)
    plain = make_stream(20, packing=packing, per_device_train_batch_size=4)
    assert auto.windows_per_epoch() == plain.windows_per_epoch()
    windows = take(auto, 9)
    assert windows == take(plain, 9)
    assert all(len(window) == 1 for window in windows)


@pytest.mark.parametrize(
    ("packing", "expected"),
    [
        (False, [4, 9, 3]),
        ("padding_free", [4, 9, 3]),
        # 24 tokens of three packs: rows of 5, 5, 4, 4, 3, and the next of 3 fits exactly.
        (True, [4, 9, 3, 8, 2, 7]),
    ],
)
def test_the_longest_batch_is_the_worst_of_a_run(packing: Any, expected: list[int]) -> None:
    rows = make_rows(10)
    lengths = [len(row["input_ids"]) for row in rows]
    settings = BatchSettings(
        per_device_train_batch_size="auto",
        train_batch_size=3,
        packing=packing,
        dataloader_num_workers=1,
    )
    collate = build_collator(settings, pad_id=0)
    before = torch.get_rng_state()
    batch = longest_batch(rows, lengths, collate, settings, CAPACITY)
    assert names_of_rows(batch) == expected
    assert torch.equal(torch.get_rng_state(), before)
    stream = make_stream(10, packing=packing, per_device_train_batch_size=3)
    sizes = [w[0]["input_ids"].numel() for w in islice(stream.windows(), 12)]
    assert max(sizes) <= batch["input_ids"].numel()


def test_packed_windows_hold_every_row_once_in_rows_of_the_capacity() -> None:
    names: Any = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    stream = make_stream(50, packing=True, packing_window=16, **names)
    windows = list(islice(stream.windows(), stream.windows_per_epoch()))
    batches = list(chain(*windows))
    assert sorted(chain(*map(names_of_rows, batches))) == list(range(50))
    assert all(batch["input_ids"].shape[1] <= 2 * CAPACITY for batch in batches)
    lengths = [len(row["input_ids"]) for row in make_rows(50)]
    expected = list(PackedBatches(lengths, CAPACITY, 16, 2, seed=0).batches(0, 0))
    assert [names_of_rows(batch) for batch in batches] == expected
    assert [len(window) for window in windows[:-1]] == [3] * (len(windows) - 1)


def test_padding_free_batches_hold_the_rows_of_padded_ones() -> None:
    names: Any = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    padded = make_stream(20, **names)
    flat = make_stream(20, packing="padding_free", **names)
    assert flat.windows_per_epoch() == padded.windows_per_epoch() == 4
    assert take(flat, 9) == take(padded, 9)


def count_windows(stream: BatchStream, num_epochs: int) -> list[int]:
    """Count the windows of each epoch by taking them."""
    counts = [0] * (num_epochs + 1)
    for _ in stream.windows():
        epoch = stream.get_state()["epoch"]
        counts[epoch] += 1
        if epoch == num_epochs:
            return counts[:num_epochs]
    raise AssertionError("windows never end")


@pytest.mark.parametrize("packing", [False, True, "padding_free"])
def test_planned_steps_are_those_that_come(packing: Any) -> None:
    names: Any = {"packing": packing, "packing_window": 8, "gradient_accumulation_steps": 2}
    stream = make_stream(90, **names)
    counts = count_windows(stream, 6)
    assert (len(set(counts)) > 1) == (packing is True)  # Else the case shows nothing.
    fresh = make_stream(90, **names)
    assert fresh.windows_per_epoch() == counts[0]
    assert [fresh.num_windows(epochs) for epochs in range(1, 7)] == [
        sum(counts[:epochs]) for epochs in range(1, 7)
    ]
    assert [fresh.num_windows(epochs + 0.5) for epochs in range(6)] == [
        sum(counts[:epochs]) + -(-counts[epochs] // 2) for epochs in range(6)
    ]
    assert fresh.num_windows(0.001) == 1
    assert fresh.num_windows(0) == 1


def test_parts_of_epochs_are_counted_as_they_are_written() -> None:
    assert make_stream(10).num_windows(1.1) == 11  # 1.1 * 10 is 11.000000000000002
    assert make_stream(10).num_windows(2.2) == 22  # (2.2 - 2) * 10 is 2.0000000000000018
    assert make_stream(10).num_windows(1.01) == 11


def test_epochs_done_is_the_position() -> None:
    names: Any = {"packing": True, "packing_window": 8, "gradient_accumulation_steps": 2}
    counts = count_windows(make_stream(90, **names), 6)
    assert len(set(counts)) > 1
    stream = make_stream(90, **names)
    done = [stream.epochs_done()]
    for _ in islice(stream.windows(), sum(counts)):
        done.append(stream.epochs_done())
    parts = [epoch + window / n for epoch, n in enumerate(counts) for window in range(1, n + 1)]
    assert done == [0.0, *parts]
    assert done[-1] == 6.0


@pytest.mark.parametrize("packing", [True, "padding_free"])
def test_flat_evaluation_fills_a_budget_of_tokens_longest_rows_first(packing: Any) -> None:
    rows = make_rows(14)
    lengths = [len(row["input_ids"]) for row in rows]
    settings = BatchSettings(per_device_eval_batch_size=2, packing=packing)
    assert evaluation_token_budget(lengths, 2) == 10
    batches = list(evaluation_batches(rows, lengths, FlatCollator(), settings))
    shown = [names_of_rows(batch) for batch in batches]
    assert shown == [[4, 9], [3, 8], [13, 2, 7], [12, 1, 6, 11, 0], [5, 10]]
    assert [batch["input_ids"].shape for batch in batches] == [
        (1, 10), (1, 8), (1, 10), (1, 10), (1, 2)
    ]  # fmt: skip


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), max_size=30), size=st.integers(1, 5))
def test_flat_evaluation_measures_every_row_once(lengths: list[int], size: int) -> None:
    rows = [
        {"input_ids": [row + 1] * length, "labels": [-100] * length}
        for row, length in enumerate(lengths)
    ]
    settings = BatchSettings(per_device_eval_batch_size=size, packing=True)
    batches = list(evaluation_batches(rows, lengths, FlatCollator(), settings))
    assert sorted(chain(*map(names_of_rows, batches))) == list(range(len(lengths)))
    assert all(batch["input_ids"].shape[1] <= size * max(lengths) for batch in batches)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 20),
    before=st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([False, True])),
    after=st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([False, True])),
    cut=st.integers(0, 25),
    seeds=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_with_other_settings_no_row_of_an_epoch_is_lost_or_trained_twice(
    count: int, before: Any, after: Any, cut: int, seeds: tuple[int, int]
) -> None:
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "packing")
    stopped = make_stream(count, seeds[0], **dict(zip(names, before, strict=True)))
    done = take(stopped, cut)
    epoch, window = position(stopped)
    resumed = make_stream(count, seeds[1], **dict(zip(names, after, strict=True)))
    resumed.set_state(json.loads(json.dumps(stopped.get_state())))
    assert resumed.is_changed == (before != after or seeds[0] != seeds[1])
    to_come = take(resumed, resumed.windows_left(epoch + 1))
    assert abs(resumed.epochs_done() - (epoch + 1)) < 1e-9
    old_windows = done[len(done) - window :] if window else []
    rows = [row for batch in chain(*old_windows, *to_come) for row in batch]
    assert sorted(rows) == list(range(count))
    fresh = make_stream(count, seeds[1], **dict(zip(names, after, strict=True)))
    fresh.set_state({**fresh.get_state(), "epoch": epoch + 1})
    assert take(resumed, 2) == take(fresh, 2), "the next epoch is as ever"


def test_a_changed_epoch_can_be_resumed_and_changed_again() -> None:
    first = make_stream(17, per_device_train_batch_size=2)
    seen = take(first, 3)
    second = make_stream(17, per_device_train_batch_size=3)
    second.set_state(first.get_state())
    straight = make_stream(17, per_device_train_batch_size=3)
    straight.set_state(first.get_state())
    expected = take(straight, 8)
    seen += take(second, 2)
    again = make_stream(17, per_device_train_batch_size=3)
    again.set_state(json.loads(json.dumps(second.get_state())))
    assert not again.is_changed
    assert take(again, 6) == expected[2:]
    third = make_stream(17, per_device_train_batch_size=1, gradient_accumulation_steps=5)
    third.set_state(second.get_state())
    assert third.rows_left() == 17 - 6 - 6
    rows = [row for batch in chain(*seen, *take(third, 1)) for row in batch]
    assert sorted(rows) == list(range(17))


def test_other_data_begins_its_epoch_anew() -> None:
    rows = make_rows(9)
    lengths = [len(row["input_ids"]) for row in rows]
    settings = BatchSettings(per_device_train_batch_size=2, packing=False)
    first = BatchStream(make_rows(30), [1] * 30, COLLATE, settings, 0, data="old")
    take(first, 12)
    second = BatchStream(rows, lengths, COLLATE, settings, 0, data="new")
    second.set_state(first.get_state())
    assert second.is_changed
    assert second.rows_left() == 9
    assert sorted(chain(*chain(*take(second, 5)))) == list(range(9))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 14),
    cut=st.integers(0, 20),
    epochs=st.sampled_from([0.3, 0.5, 1, 1.1, 2, 2.75]),
    packing=st.sampled_from([False, True]),
)
def test_windows_done_and_windows_left_are_all_of_them(
    count: int, cut: int, epochs: float, packing: Any
) -> None:
    stream = make_stream(count, per_device_train_batch_size=2, packing=packing)
    total = stream.num_windows(epochs)
    assert max(1, stream.windows_left(epochs)) == total
    cut = min(cut, total)
    take(stream, cut)
    assert cut + stream.windows_left(epochs) == total


def test_a_window_taken_back_is_handed_out_again() -> None:
    stream = make_stream(7, per_device_train_batch_size=2)
    windows = stream.windows()
    next(windows)
    window = names_of(next(windows))
    assert stream.window_rows() == window[0]
    stream.take_back()
    again = make_stream(7, per_device_train_batch_size=2)
    again.set_state(stream.get_state())
    assert take(again, 1) == [window]
