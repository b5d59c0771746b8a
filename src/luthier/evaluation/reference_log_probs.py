"""How probable the model was before training finds the answers: computed once, for all rows.

In: a model before its first step, and pairs in batches. Out: four numbers a row. Under a new
adapter stands the reference, whatever the adapter has learned; without one, the reference is the
model itself before training. So no second model is held in memory while training runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from luthier.contracts.training import StopAskedError
from luthier.engine.memory import MicroBatches
from luthier.engine.precision import Precision
from luthier.objectives.pair_log_probs import pair_log_probs

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.objectives.head import Head

COLUMNS = ("chosen", "rejected", "chosen_shared", "rejected_shared")
"""What is kept of each row; with `reference_` before them, the columns of prepared pairs."""

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class ReferencePass:
    """Computes the reference's log-probabilities.

    Attributes:
        head: The head of the model (`find_head`), if it could be found.
        precision: The precision that training computes in.
        device: Where the model is.
        without_adapter: Whether an adapter of the model is switched off for it.
        progress: Called after each batch.
        is_stopped: Asked before each batch: whether somebody wants to stop.
        micro_batches: Cuts batches where memory runs out.
    """

    head: Head | None
    precision: Precision
    device: torch.device
    without_adapter: bool = True
    progress: Report = lambda _what, _done, _total: None
    is_stopped: Callable[[], bool] = lambda: False
    micro_batches: MicroBatches = field(default_factory=MicroBatches)

    def __call__(
        self, model: torch.nn.Module, batches: Iterable[tuple[Sequence[int], Batch]], num_rows: int
    ) -> npt.NDArray[np.float32]:
        """Return the sums of log p of each row's answers, (num_rows, 4), as `COLUMNS` names them.

        Each module of the model goes back to the mode (training or not) that it was in.

        Args:
            model: The model as it is before training.
            batches: The numbers of a batch's rows, and the batch; each row in one of them.
            num_rows: Rows in all.

        Raises:
            StopAskedError: Somebody wants to stop: it would take too long to finish.
            ValueError: As `pair_log_probs`, or the batches lack a row.
        """
        values_N4 = np.full((num_rows, 4), np.nan, np.float32)
        modes = [(module, module.training) for module in model.modules()]
        num_done = 0
        model.eval()
        try:
            with torch.inference_mode(), self._base_of(model):
                for numbers, batch in batches:
                    if self.is_stopped():
                        raise StopAskedError
                    work = partial(self._log_probs, model, batch)
                    values_N4[list(numbers)] = self.micro_batches.retry(work, _nothing)
                    num_done += len(numbers)
                    self.progress("reference log-probabilities", num_done, num_rows)
        finally:
            for module, training in modes:
                module.training = training
        if num_done != num_rows:
            raise ValueError(f"the batches hold {num_done} rows of {num_rows}")
        return values_N4

    def _base_of(self, model: Any) -> AbstractContextManager[Any]:
        # peft's own switch. transformers' models have `disable_adapters`, which is another one.
        switch: Any = getattr(model, "disable_adapter", None)
        return switch() if self.without_adapter and switch is not None else nullcontext()

    def _log_probs(self, model: torch.nn.Module, batch: Batch) -> npt.NDArray[np.float32]:
        found: list[torch.Tensor] = []
        for part in self.micro_batches.cut([batch]):
            on_device = {name: tensor.to(self.device) for name, tensor in part.items()}
            with self.precision.autocast():
                of_part = pair_log_probs(self.head, model, on_device)
            sums = [getattr(of_part, name) for name in COLUMNS]
            found.append(torch.stack(sums, dim=1).float().cpu())
        return torch.cat(found).numpy()


def _nothing() -> None:
    """Forget nothing: a try that failed has left nothing behind."""
