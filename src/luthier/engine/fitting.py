"""`per_device_train_batch_size: auto`: the largest micro-batch that fits, before the first step.

A GPU says when its memory is full, so there sizes are tried, from the whole step downwards. On a
CPU the system ends the process without a word: there sizes are measured, from one row upwards, as
long as the next is foreseen to fit. Nothing of the run is changed but the size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import psutil
import torch

from luthier.contracts.counting import count_positions
from luthier.contracts.notice import Notice
from luthier.contracts.training import Accumulation
from luthier.core.units import format_bytes
from luthier.engine.loop import Training, add_gradients
from luthier.engine.memory import (
    free_memory,
    is_out_of_memory,
    random_states,
    row_too_large,
    set_random_states,
)
from luthier.engine.meter import memory_bytes
from luthier.engine.optimizer import state_bytes

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

CPU_POSITIONS = 8192
"""Positions above which a larger micro-batch is no faster on a CPU: matrices of far fewer rows keep
its cores busy, and what a step costs beside them is spread over enough tokens."""

SPARE_SHARE = 0.3
"""Share of the free memory that is left alone, for evaluation and for what steps leave lying about:
135M parameters, all trained, were foreseen to take 9.8 GiB, and took 12.9 after two steps."""

GPU_SPARE_SHARE = 0.05
"""The same of a GPU's whole memory: what is free there may lie in pieces."""

_SAMPLE_S = 0.001


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found.

    Attributes:
        max_positions: Positions that a micro-batch may have.
        reason: How it is known, and with how much memory.
    """

    max_positions: int
    reason: str


def fit_micro_batches(run: Training, worst: Batch, free_bytes: Callable[[], int]) -> Notice:
    """Find the largest micro-batch that fits, and let the run use it.

    Weights, optimiser and random generators are as before. The model is left in training mode.

    Args:
        run: The training, before its first step; its `micro_batches` can cut.
        worst: All rows of one step, the longest of the data, longest first.
        free_bytes: Asks for the main memory that the process can still get.

    Returns:
        What was chosen, and why.

    Raises:
        RunError: A row by itself is too much for the GPU.
    """
    random = random_states()
    run.model.train()
    try:
        if run.device.type == "cuda":
            total = torch.cuda.get_device_properties(run.device).total_memory
            fit = fit_by_trying(run, worst, int(total * GPU_SPARE_SHARE))
        else:
            fit = fit_by_measuring(run, worst, free_bytes)
    finally:
        _drop(run)
        set_random_states(random)
    run.micro_batches.max_positions = fit.max_positions
    return run.micro_batches.notice("auto", fit.reason)


def fit_by_trying(run: Training, worst: Batch, spare_bytes: int) -> Fit:
    """Halve the worst batch until its forward and backward pass fit, beside what comes later.

    Args:
        run: The training.
        worst: As `fit_micro_batches`.
        spare_bytes: Device memory that must stay free.

    Raises:
        RunError: A row by itself is too much.
    """
    held_bytes = spare_bytes + state_bytes(run.optimizer)
    part = worst
    while (cause := _fails(run, part, held_bytes)) is not None:
        _drop(run)
        size = count_positions(part)
        smaller = run.micro_batches.parts(part, -(-size // 2))
        if len(smaller) < 2:
            raise row_too_large(size, cause)
        part = smaller[0]
    peak = format_bytes(memory_bytes())
    return Fit(count_positions(part), f"tried, with {peak} at most")


def _fails(run: Training, batch: Batch, held_bytes: int) -> str | None:
    """Return why a batch does not fit, or None. The first line of the error says how much."""
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    try:
        held = torch.empty(held_bytes, dtype=torch.uint8, device=run.device)
        for _ in range(2):
            _pass(run, batch)
        del held
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return str(error).partition("\n")[0]
    return None


def _pass(run: Training, batch: Batch) -> None:
    # The gradients stay: from its second micro-batch on, a step holds them too.
    add_gradients(run, [batch], count_positions(batch), Accumulation())


def _drop(run: Training) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    free_memory()


def fit_by_measuring(run: Training, worst: Batch, free_bytes: Callable[[], int]) -> Fit:
    """Double the micro-batch as long as the next size is foreseen to fit.

    What a size takes is foreseen from the two before it. Far off that is too low, for small buffers
    are used again where large ones are not: only where there is room twice over is it relied on.

    Args:
        run: The training.
        worst: As `fit_micro_batches`.
        free_bytes: As there.
    """
    useful = min(count_positions(worst), CPU_POSITIONS)
    enough = "all rows of a step"
    if useful < count_positions(worst):
        enough = "more is no faster on a CPU"
    row = run.micro_batches.parts(worst, 1)[0]
    first = count_positions(row)
    if first >= useful:
        return Fit(useful, f"the longest row has {first:,} tokens, and {enough}")
    _pass(run, row)  # Libraries set themselves up, and the gradients come to be.
    before, free = resident_bytes(), free_bytes()
    state = state_bytes(run.optimizer)  # It comes with the first step and stays.
    limit = before + free * (1 - SPARE_SHARE) - state
    size, peak, slope, wanted = 0, before, 0.0, first

    def foreseen(positions: int) -> float:
        return peak + slope * (positions - size)

    while size == 0 or foreseen(wanted) <= limit:
        part = run.micro_batches.parts(worst, wanted)[0]
        measured = count_positions(part)
        is_roomy = size > first and 2 * foreseen(useful) <= limit
        if is_roomy or measured == size:
            break  # Or the next row does not go into what is useful.
        with PeakMemory() as memory:
            _pass(run, part)
        slope = max(0, memory.peak_bytes - peak) / (measured - size)
        size, peak = measured, max(peak, memory.peak_bytes)
        wanted = min(2 * size, useful)
    found, why = useful, enough
    if foreseen(useful) > limit:
        found, why = size, "as many as fit"
        if slope:
            found = min(useful, size + math.floor((limit - peak) / slope))
        if found < first or (peak > limit and size == first):
            found, why = first, "a row at a time, and even that may be too much"
    needed = format_bytes(foreseen(found) + state)
    return Fit(found, f"about {needed} of memory, {format_bytes(free)} are free: {why}")


def resident_bytes() -> int:
    """Return the main memory that the process holds."""
    return psutil.Process().memory_info().rss


class PeakMemory:
    """A context that watches the most resident memory that the process has inside of it.

    A thread looks every millisecond, which every system allows; Linux' own high-water mark can
    be set back only where the kernel permits it.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Start to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look a last time."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            is_last = self._done.wait(_SAMPLE_S)
            self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
            if is_last:
                return
