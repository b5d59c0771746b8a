"""A user's own part of a run: metrics, stops and hooks, from a file that `callbacks` names.

# early.py
class EarlyBird:
    def on_evaluation(self, record, control, model, tokenizer):
        if record.metrics["eval_loss"] < 1.0:
            control.stop("good enough")
        return {"good": float(record.metrics["eval_loss"] < 1.0)}

luthier train run.yaml --callbacks early.py:EarlyBird
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from luthier.contracts.training import Progress, SampleRecord, StepRecord


@dataclass(frozen=True, slots=True)
class RunControl:
    """What a callback knows of its run, and what it may ask for.

    Attributes:
        folder: The run's folder.
        settings: All settings, by name.
        ask: Told why the run is to end.
    """

    folder: Path
    settings: Mapping[str, Any]
    ask: Callable[[str], None]

    def stop(self, reason: str) -> None:
        """End the run after the step under way, with a checkpoint, as finished early.

        Args:
            reason: Is written to events.jsonl.
        """
        self.ask(reason)


class Callback(Protocol):
    """What a callback may have. All methods are optional, but there must be one at least.

    The class is built without arguments. Its methods are called in the thread that trains: their
    time is the run's. Random numbers drawn in them are none of the run's. One that raises ends
    the run after a checkpoint.
    """

    def on_start(self, progress: Progress, control: RunControl) -> None:
        """Training starts or goes on at `progress.step`; also after the run went back."""
        ...

    def on_step(self, record: StepRecord, control: RunControl) -> None:
        """One optimiser step is done; on a GPU its loss is not known yet."""
        ...

    def on_log(self, record: StepRecord, control: RunControl) -> Mapping[str, float] | None:
        """`logging_steps` steps are done.

        Returns:
            More metrics for this line of metrics.jsonl: finite numbers under names of your own.
        """
        ...

    def on_evaluation(
        self,
        record: StepRecord,
        control: RunControl,
        model: torch.nn.Module,
        tokenizer: Any,
    ) -> Mapping[str, float] | None:
        """An evaluation is done.

        Args:
            record: Its metrics are named `eval_...`.
            control: Of the run.
            model: To be looked at, never changed: in evaluation mode, in inference mode, in the
                run's precision, with the weights that would be saved.
            tokenizer: The run's.

        Returns:
            More metrics for this line of metrics.jsonl: finite numbers under names of your own.
        """
        ...

    def on_samples(self, record: SampleRecord, control: RunControl) -> None:
        """The model has answered the run's fixed prompts."""
        ...

    def on_checkpoint(self, step: int, path: str, control: RunControl) -> None:
        """A checkpoint is sealed."""
        ...

    def on_end(self, progress: Progress, control: RunControl) -> None:
        """Training ended, at its end or by a signal."""
        ...

    def get_state(self) -> Mapping[str, Any]:
        """Return what goes into checkpoints, as plain JSON."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `get_state` returned."""
        ...


HOOKS = (
    *("on_start", "on_step", "on_log", "on_evaluation", "on_samples"),
    *("on_checkpoint", "on_end"),
)
"""The methods that a run calls."""
