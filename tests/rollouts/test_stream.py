"""Windows of drawn answers: drawn once, handed out as often as is asked, kept until used up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
import torch

from luthier.batches.collate import CausalLMCollator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import BatchStream
from luthier.core.seeds import derive_seed
from luthier.rollouts.answers import Rollout
from luthier.rollouts.stream import RolloutStream

COLLATE = CausalLMCollator(0)


class Script:
    """Answers prompt n twice, with n and the seed; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[list[int]], int]] = []

    def __call__(self, numbers: Sequence[Sequence[int]], seed: int) -> list[list[Rollout]]:
        self.asked.append(([list(part) for part in numbers], seed))
        return [
            [Rollout([1], [n + 1, seed % 97], side, {}) for n in part for side in (-1.0, 1.0)]
            for part in numbers
        ]


def make(num_rows: int = 5, num_iterations: int = 1, **settings: Any) -> tuple[Any, Script]:
    rows = [{"input_ids": [n + 1], "labels": [-100]} for n in range(num_rows)]
    values: dict[str, Any] = {
        "packing": False,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
    }
    batches = BatchSettings(**{**values, **settings})
    prompts = BatchStream(rows, [1] * num_rows, COLLATE, batches, seed=7)
    draw = Script()
    return RolloutStream(prompts, draw, COLLATE, num_iterations, seed=7), draw


def ids(window: Sequence[dict[str, torch.Tensor]]) -> list[Any]:
    return [batch["input_ids"].tolist() for batch in window]


def state_of(stream: RolloutStream) -> dict[str, Any]:
    return json.loads(json.dumps(stream.get_state()))


def test_each_window_is_drawn_when_it_is_asked_for():
    stream, draw = make()
    windows = stream.windows()
    assert not draw.asked
    window = next(windows)
    (numbers, seed), *_ = draw.asked
    assert seed == derive_seed(7, "rollouts", 0)
    assert [len(part) for part in numbers] == [1, 1]
    assert stream.window_rows() == [n for part in numbers for n in part]
    assert ids(window)[0] == [[1, numbers[0][0] + 1, seed % 97]] * 2
    next(windows)
    next(windows)
    assert len(draw.asked) == stream.windows_per_epoch() == 3
    assert len({seed for _, seed in draw.asked}) == 3
    assert stream.epochs_done() == 1.0
    drawn = sorted(n for numbers, _ in draw.asked for part in numbers for n in part)
    assert drawn == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_iterations", [1, 2, 3])
@pytest.mark.parametrize("stop", range(1, 8))
@pytest.mark.parametrize("taken_back", [False, True])
def test_going_on_from_any_point_gives_the_same_windows(
    num_iterations: int, stop: int, taken_back: bool
):
    whole = [ids(window) for window in islice(make(num_iterations=num_iterations)[0].windows(), 12)]
    stream, draw = make(num_iterations=num_iterations)
    seen = [ids(window) for window in islice(stream.windows(), stop)]
    assert seen == whole[:stop]
    left = stream.windows_left(3)
    if taken_back:
        stream.take_back()
        assert stream.windows_left(3) == left + 1
    again, redraw = make(num_iterations=num_iterations)
    again.set_state(state_of(stream))
    first = stop - taken_back
    assert again.windows_left(3) == 3 * 3 * num_iterations - first
    assert again.epochs_done() == pytest.approx(first / (3 * num_iterations), abs=0.2)
    rest = [ids(window) for window in islice(again.windows(), 12 - first)]
    assert rest == whole[first:]
    # Answers that are not used up are never drawn again: the weights may be others by now.
    assert len(draw.asked) + len(redraw.asked) == -(-12 // num_iterations)


def test_the_epoch_grows_with_each_step_on_the_same_answers():
    stream, _ = make(num_iterations=2)
    done: list[float] = []
    for _ in islice(stream.windows(), 6):
        done.append(stream.epochs_done())
    assert done == pytest.approx([n / 6 for n in range(1, 7)])
    assert done[-1] == 1.0


def test_the_rows_of_a_window_that_is_gone_on_with_are_known():
    stream, _ = make(num_iterations=2)
    next(stream.windows())
    again, _ = make(num_iterations=2)
    again.set_state(state_of(stream))
    next(again.windows())
    assert again.window_rows() == stream.window_rows()


def test_other_batches_leave_out_what_was_drawn():
    stream, _ = make(num_iterations=2)
    windows = stream.windows()
    next(windows)
    other, draw = make(num_iterations=2, gradient_accumulation_steps=1)
    other.set_state(state_of(stream))
    assert other.is_changed
    assert other.rows_left() == 3
    next(other.windows())
    (numbers, _), *_ = draw.asked
    assert numbers[0][0] not in stream.window_rows()


def test_what_is_used_up_is_not_kept():
    stream, _ = make()
    next(stream.windows())
    assert "drawn" not in stream.get_state()
    stream.take_back()
    assert len(stream.get_state()["drawn"]) == 2
