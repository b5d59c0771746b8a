"""The largest micro-batch: found by trying, or by measuring smaller ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from luthier.batches.collate import causal_lm_collate
from luthier.batches.cutting import split_batch
from luthier.contracts.counting import count_positions
from luthier.core.errors import RunError
from luthier.core.units import GIB, MIB, format_bytes
from luthier.engine import fitting
from luthier.engine.fitting import (
    CPU_POSITIONS,
    PeakMemory,
    fit_by_measuring,
    fit_by_trying,
    fit_micro_batches,
)
from luthier.engine.loop import Training, train
from luthier.engine.memory import MicroBatches
from luthier.engine.optimizer import state_bytes
from luthier.objectives.sft import SupervisedFineTuning

Make = Callable[..., Any]
ROWS = [{"input_ids": [5] * 16, "labels": [-100] + [5] * 15} for _ in range(16)]
WORST = causal_lm_collate(ROWS, pad_id=0)


class Weighing(SupervisedFineTuning):
    """Says what it was given, keeps so much memory for each position, and fails above a limit."""

    def __init__(self, bytes_each: int = 0, limit: int | None = None) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.bytes_each, self.limit = bytes_each, limit

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __call__(self, model: Any, batch: Any) -> Any:
        size = count_positions(batch)
        self.sizes.append(size)
        if self.limit is not None and size > self.limit:
            raise torch.OutOfMemoryError(f"no {size}")
        kept = torch.ones(self.bytes_each * size, dtype=torch.uint8)
        loss = super().__call__(model, batch)
        del kept
        return loss


@pytest.fixture
def make_run(make_training: Make) -> Callable[[Any], Training]:
    def make(objective: Any) -> Training:
        return make_training(objective=objective, micro_batches=MicroBatches(split_batch))

    return make


@pytest.mark.parametrize(("limit", "found"), [(1000, 256), (255, 128), (100, 64), (16, 16)])
def test_sizes_are_tried_from_the_whole_step_down(make_run: Make, limit: int, found: int) -> None:
    objective = Weighing(limit=limit)
    fit = fit_by_trying(make_run(objective), WORST, spare_bytes=1024)
    assert fit.max_positions == found
    assert fit.reason.startswith("tried, with ")
    tried = [256 >> power for power in range(5) if 256 >> power > found]
    assert objective.sizes == [*tried, found, found]


def test_a_row_that_does_not_fit_is_an_error(make_run: Make) -> None:
    with pytest.raises(RunError, match="memory ran out on a single row of 16 tokens: no 16"):
        fit_by_trying(make_run(Weighing(limit=15)), WORST, spare_bytes=0)


def test_room_is_left_for_what_comes_later(make_run: Make) -> None:
    """A reserve that can't be had is as if no size fitted."""
    with pytest.raises(RunError, match=r"single row of 16 tokens: .*DefaultCPUAllocator"):
        fit_by_trying(make_run(Weighing()), WORST, spare_bytes=2**60)


def test_other_errors_of_a_try_pass(make_run: Make) -> None:
    class Broken(SupervisedFineTuning):
        def __call__(self, model: Any, batch: Any) -> Any:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fit_by_trying(make_run(Broken()), WORST, spare_bytes=0)


class Scale:
    """Main memory in which each position takes a MiB, and large buffers more than small ones."""

    def __init__(self, objective: Weighing, *, curved: bool = False) -> None:
        self.objective, self.curved = objective, curved
        self.peak_bytes = 0

    def __enter__(self) -> Scale:
        return self

    def __exit__(self, *_: object) -> None:
        size = self.objective.sizes[-1]
        self.peak_bytes = 100 * MIB + size * MIB * (2 if self.curved and size > 32 else 1)


ALL, FEW = "all rows of a step", "as many as fit"
BARELY = "a row at a time, and even that may be too much"


@pytest.mark.parametrize(
    ("free_mib", "curved", "found", "sizes", "why"),
    [
        # The optimiser's state is small; 0.7 of the free memory is room for so many positions.
        (10_000, False, 256, [16, 16, 32], ALL),
        (500, False, 256, [16, 16, 32, 64, 128, 256], ALL),
        (143, False, 99, [16, 16, 32, 64], FEW),
        (143, True, 54, [16, 16, 32, 64], FEW),
        (23, False, 15, [16, 16], BARELY),
        (0, False, 15, [16, 16], BARELY),
    ],
)
def test_sizes_are_measured_as_long_as_the_next_is_foreseen_to_fit(
    make_run: Make,
    monkeypatch: pytest.MonkeyPatch,
    free_mib: int,
    curved: bool,
    found: int,
    sizes: list[int],
    why: str,
) -> None:
    objective = Weighing()
    monkeypatch.setattr(fitting, "PeakMemory", lambda: Scale(objective, curved=curved))
    monkeypatch.setattr(fitting, "resident_bytes", lambda: 100 * MIB)
    fit = fit_by_measuring(make_run(objective), WORST, lambda: free_mib * MIB)
    assert objective.sizes == sizes
    assert fit.max_positions == max(16, found)
    assert fit.reason.endswith(f"MiB of memory, {format_bytes(free_mib * MIB)} are free: {why}")


def test_what_the_process_really_takes_is_seen(make_run: Make) -> None:
    """Eight MiB for each position: two rows take 256 MiB, and all would take two GiB."""
    objective = Weighing(8 * MIB)
    fit = fit_by_measuring(make_run(objective), WORST, lambda: 700 * MIB)
    assert 16 <= fit.max_positions < 128
    assert fit.reason.endswith(FEW)


def test_rows_of_different_length_end_the_search_too(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows take 30 of the useful 40 positions, and a third would be too much."""
    monkeypatch.setattr(fitting, "CPU_POSITIONS", 40)
    rows = [{"input_ids": [5] * n, "labels": [-100] + [5] * (n - 1)} for n in (15, 14, 13)]
    objective = Weighing()
    fit = fit_by_measuring(make_run(objective), causal_lm_collate(rows, 0), lambda: GIB)
    assert (fit.max_positions, objective.sizes) == (40, [15, 15, 30])


def test_on_a_cpu_more_is_not_better(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CPU_POSITIONS == 8192
    monkeypatch.setattr(fitting, "CPU_POSITIONS", 64)
    fit = fit_by_measuring(make_run(Weighing()), WORST, lambda: 64 * GIB)
    assert fit.max_positions == 64
    assert fit.reason.endswith("more is no faster on a CPU")


def test_rows_that_are_long_enough_alone_are_not_measured(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CPU_POSITIONS", 16)
    objective = Weighing()
    fit = fit_by_measuring(make_run(objective), WORST, lambda: GIB)
    assert (fit.max_positions, objective.sizes) == (16, [])
    assert fit.reason == "the longest row has 16 tokens, and more is no faster on a CPU"


def test_nothing_is_changed_but_the_size(make_training: Make, make_model: Make) -> None:
    """A run that measured first trains to the same bits as one that was told the size."""
    measured, told = (
        make_training(
            model=make_model(lora=True, dropout=0.3),
            micro_batches=MicroBatches(split_batch, size),
            batch_size=4,
        )
        for size in (None, 256)
    )
    torch.manual_seed(11)
    before = copy.deepcopy(measured.batches.get_state())
    notice = fit_micro_batches(measured, WORST, lambda: 64 * GIB)
    assert str(notice).startswith(
        "per_device_train_batch_size: auto -> at most 256 tokens at once ("
    )
    assert measured.micro_batches.max_positions == 256
    assert measured.batches.get_state() == before
    assert not measured.optimizer.state
    assert all(p.grad is None for p in measured.model.parameters())
    train(measured)
    torch.manual_seed(11)
    train(told)
    expected = dict(told.model.named_parameters())
    assert all(torch.equal(p, expected[n]) for n, p in measured.model.named_parameters())


def test_gradients_go_even_if_measuring_fails(make_run: Make) -> None:
    def fail() -> int:
        raise KeyboardInterrupt

    run = make_run(Weighing())
    with pytest.raises(KeyboardInterrupt):
        fit_micro_batches(run, WORST, fail)
    assert all(p.grad is None for p in run.model.parameters())
    assert run.micro_batches.max_positions is None


def test_the_peak_is_seen_though_it_passes() -> None:
    with PeakMemory() as idle:
        pass
    with PeakMemory() as busy:
        for _ in range(3):
            torch.ones(256 * MIB, dtype=torch.uint8)
    assert idle.peak_bytes > 0
    assert busy.peak_bytes - idle.peak_bytes > 128 * MIB


def test_the_optimisers_state_is_counted_before_it_is_there(make_training: Make) -> None:
    training = make_training(max_steps=1)
    count = sum(p.numel() for p in training.model.parameters())
    assert state_bytes(training.optimizer) == 8 * count
    train(training)
    assert state_bytes(training.optimizer) == 0
