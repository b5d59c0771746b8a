"""Micro-batches that fit the memory: cut to a size, and cut smaller where memory runs out.

A window's loss is divided by the weight of the whole window, so it may be cut anywhere between
two rows: the sum of the gradients is the same. What fits is a number of positions, padding
included, for that is what activations grow with. It is part of a run's state: a run that goes on
from a checkpoint cuts as it did before.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from luthier.contracts.counting import count_positions
from luthier.contracts.notice import Notice
from luthier.core.errors import RunError

if TYPE_CHECKING:
    from luthier.contracts.training import Batch

Result = TypeVar("Result")

Split = Callable[["Batch", int], Sequence["Batch"]]
"""From a batch and a number of positions to parts that have no more, in the batch's order. A row
that has more by itself stands alone."""


def undivided(batch: Batch, max_positions: int) -> Sequence[Batch]:
    """Return the batch as it is: a `Split` for batches that can't be cut."""
    del max_positions
    return [batch]


class MicroBatches:
    """Cuts the micro-batches of a window to a size, and remembers the size that fits."""

    def __init__(
        self,
        split: Split = undivided,
        max_positions: int | None = None,
        tell: Callable[[Notice], None] = lambda notice: None,
        setting: str = "per_device_train_batch_size",
    ) -> None:
        """Set the size to begin with.

        Args:
            split: Cuts one batch.
            max_positions: Positions that a micro-batch may have; None: as many as it has.
            tell: Told once when memory runs out and the size is halved.
            setting: The one that the size is in place of, for that notice.
        """
        self.max_positions = max_positions
        self._split = split
        self._tell = tell
        self._setting = setting
        self._told = False
        self._under_way: Batch | None = None

    def cut(self, window: Sequence[Batch]) -> Iterator[Batch]:
        """Yield a window's micro-batches one after another, none larger than what fits."""
        self._under_way = None
        for batch in window:
            for part in self.parts(batch, self.max_positions):
                self._under_way = part
                yield part

    def parts(self, batch: Batch, max_positions: int | None) -> Sequence[Batch]:
        """Return a batch in parts of a size: itself if it is small enough."""
        if max_positions is None or count_positions(batch) <= max_positions:
            return [batch]
        return self._split(batch, max_positions)

    def retry(self, compute: Callable[[], Result], forget: Callable[[], None]) -> Result:
        """Compute a window's gradients, again with smaller micro-batches if memory runs out.

        The gradients that a failed try has left are dropped, and the random generators are put
        back, so that the result depends on nothing but the size that fits.

        Args:
            compute: Adds up the gradients over micro-batches that come from `cut`.
            forget: Drops the gradients and all else that is left of a failed try.

        Returns:
            What `compute` returned.

        Raises:
            RunError: A row by itself is too much.
        """
        while True:
            random = random_states()
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                cause = str(error).partition("\n")[0]
            # Behind `except`: as long as the error lives, its traceback holds the activations.
            forget()
            free_memory()
            set_random_states(random)
            self._halve(cause)

    def get_state(self) -> dict[str, Any]:
        """Return the size that fits as plain JSON."""
        return {"max_positions": self.max_positions}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with a size that `get_state` returned."""
        self.max_positions = state["max_positions"]

    def _halve(self, cause: str) -> None:
        assert self._under_way is not None, "memory ran out before the first micro-batch"
        failed = count_positions(self._under_way)
        smaller = -(-failed // 2)
        if len(self.parts(self._under_way, smaller)) < 2:
            raise row_too_large(failed, cause)
        self.max_positions = smaller
        if not self._told:
            self._told = True
            reason = "memory ran out: batches are halved, the result stays the same"
            self._tell(self.notice(f"{failed:,} tokens at once", reason))

    def notice(self, asked: str, reason: str) -> Notice:
        """Return the size in use as it is said and recorded."""
        used = f"at most {self.max_positions:,} tokens at once"
        return Notice(self._setting, asked, used, reason)


@contextmanager
def memory_errors() -> Generator[None]:
    """Turn memory that runs out where no smaller batch would help into an error that says so.

    Raises:
        RunError: In place of torch's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"memory ran out beside the batches, where weights and optimiser lie: "
            f"{str(error).partition(chr(10))[0]}",
            mend="Train less of the model (finetuning_type: lora), set optim: adafactor, or free "
            "memory that other processes hold.",
        ) from error


def row_too_large(num_tokens: int, cause: str) -> RunError:
    """Return the error for a row that does not fit the memory by itself."""
    return RunError(
        f"memory ran out on a single row of {num_tokens:,} tokens: {cause}",
        mend="Lower cutoff_len, or set gradient_checkpointing: true.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a GPU or on the CPU."""
    # On the CPU torch has no class of its own for it.
    is_cpus = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return is_cpus or isinstance(error, torch.OutOfMemoryError | MemoryError)


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def random_states() -> list[torch.Tensor]:
    """Return the states of torch's random generators, the CPU's first. Waits for no device."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def set_random_states(states: Sequence[torch.Tensor]) -> None:
    """Put torch's random generators back to where `random_states` found them."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
