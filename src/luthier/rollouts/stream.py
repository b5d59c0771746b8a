"""Windows of answers that the model draws itself; implements `BatchSource`.

In: windows of prompts. Out: windows of answers to them, drawn from the model as it is when the
window is asked for, each handed out for `num_iterations` steps. As everywhere, the state is not a
history: it is the position among the prompts, and the answers that are not used up yet. These are
kept whole, so that a run that goes on in the middle of a step has the very same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from luthier.batches.collate import Collate
from luthier.contracts.counting import count_rows
from luthier.contracts.training import EpochBatches
from luthier.core.seeds import derive_seed
from luthier.rollouts.answers import Rollout, from_json, rollout_batch

if TYPE_CHECKING:
    import torch

Draw = Callable[[Sequence[Sequence[int]], int], list[list[Rollout]]]
"""From the numbers of the prompts of each micro-batch, and a seed, to their answers: as many groups
as there are micro-batches, the answers to one prompt one after another."""


class RolloutStream:
    """Training batches of answers, a window (one optimiser step) at a time."""

    def __init__(
        self, prompts: EpochBatches, draw: Draw, collate: Collate, num_iterations: int, seed: int
    ) -> None:
        """Set the stream at the start of the prompts.

        Args:
            prompts: Windows of prompts; of their batches only the number of rows is looked at.
            draw: Answers prompts.
            collate: Makes a batch of rows.
            num_iterations: Steps that each window of answers is handed out for.
            seed: The run's seed.
        """
        self._prompts = prompts
        self._draw = draw
        self._collate = collate
        self._num_iterations = num_iterations
        self._seed = seed
        self._rows: list[int] = []
        self._drawn: list[list[Rollout]] = []
        self._num_drawn = 0
        self._num_used = 0
        self._epochs_before = 0.0

    def windows_per_epoch(self) -> int:
        """Return the optimiser steps of an epoch of prompts."""
        return self._prompts.windows_per_epoch() * self._num_iterations

    def windows_left(self, epochs: float) -> int:
        """Return the optimiser steps from here to the end of so many epochs of prompts."""
        of_these = self._num_iterations - self._num_used if self._is_between else 0
        return self._prompts.windows_left(epochs) * self._num_iterations + of_these

    def epochs_done(self) -> float:
        """Return the position in epochs of prompts."""
        after = self._prompts.epochs_done()
        if not self._is_between:
            return after
        share = self._num_used / self._num_iterations
        return self._epochs_before + (after - self._epochs_before) * share

    def windows(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """Yield windows for ever; each is drawn when it is asked for."""
        prompts = self._prompts.windows()
        while True:
            if not self._is_between:
                self._epochs_before = self._prompts.epochs_done()
                window = next(prompts)
                self._rows = list(self._prompts.window_rows())
                # A window that was taken back comes again, and its answers are there.
                if not self._drawn or self._num_used:
                    self._answer([count_rows(batch) for batch in window])
            self._num_used += 1
            yield [rollout_batch(rollouts, self._collate) for rollouts in self._drawn]

    def window_rows(self) -> list[int]:
        """Return the numbers of the prompts of the window that was handed out last."""
        return self._rows

    def take_back(self) -> None:
        """Count the window that was handed out last as not handed out; its answers are kept."""
        self._num_used -= 1
        if not self._num_used:
            self._prompts.take_back()

    @property
    def is_changed(self) -> bool:
        """Whether the position was reached with other settings or data than today's."""
        return self._prompts.is_changed

    def rows_left(self) -> int:
        """Return how many prompts the epoch had left when today's settings took it over."""
        return self._prompts.rows_left()

    def get_state(self) -> dict[str, Any]:
        """Return the position among the prompts, and the answers that are not used up."""
        state = {"prompts": self._prompts.get_state(), "num_drawn": self._num_drawn}
        if not self._drawn or self._num_used >= self._num_iterations:
            return state
        return state | {
            "num_used": self._num_used,
            "rows": self._rows,
            "epochs_before": self._epochs_before,
            "drawn": [[asdict(rollout) for rollout in rollouts] for rollouts in self._drawn],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position; takes effect with the next call of `windows`.

        Answers that were drawn with other batches are left out.
        """
        self._prompts.set_state(state["prompts"])
        self._num_drawn = int(state["num_drawn"])
        under_way: Mapping[str, Any] = {} if self.is_changed else state
        self._num_used = int(under_way.get("num_used", 0))
        self._rows = list(under_way.get("rows", ()))
        self._epochs_before = float(under_way.get("epochs_before", 0.0))
        self._drawn = [list(map(from_json, part)) for part in under_way.get("drawn", ())]

    @property
    def _is_between(self) -> bool:
        """Whether the answers were trained on, and will be again."""
        return 0 < self._num_used < self._num_iterations

    def _answer(self, sizes: Sequence[int]) -> None:
        """Draw answers to the prompts of a new window, from their number in each micro-batch."""
        rows = iter(self._rows)
        numbers = [[next(rows) for _ in range(size)] for size in sizes]
        seed = derive_seed(self._seed, "rollouts", self._num_drawn)
        self._drawn = self._draw(numbers, seed)
        self._num_drawn += 1
        self._num_used = 0
