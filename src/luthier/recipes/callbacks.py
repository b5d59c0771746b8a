"""A run's callbacks at work: called before all who show it, their metrics joined to its own.

What a callback raises ends the run, but not at once: the loop is asked to stop as by a signal, so
that a checkpoint is written first, and the error is raised when it has returned.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from luthier.contracts.callback import RunControl
from luthier.contracts.training import Observer, Progress, StepRecord, StopRequest
from luthier.core.errors import RunError
from luthier.engine.guards import Guards
from luthier.engine.schedule_free import on_averaged_weights
from luthier.recipes.callback_file import NamedCallback
from luthier.recipes.job import Job

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord

_OF_A_RECORD = frozenset({"kind", "step", "epoch", "elapsed_seconds"})
"""Names that every line of metrics.jsonl has."""


class Callbacks:
    """Calls a run's callbacks, then its other observers; implements `Observer` and `Resumable`."""

    def __init__(
        self,
        callbacks: Sequence[NamedCallback],
        observers: Sequence[Observer],
        folder: Path,
        settings: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        """Remember who is called.

        Args:
            callbacks: In their order.
            observers: Told of the callbacks' metrics as if they were luthier's.
            folder: The run's.
            settings: All settings, by name.
            say: Told the callbacks' metrics, a line a record.
        """
        self._observers = observers
        self._say = say
        self._step = 0
        self.error: RunError | None = None
        self.detach()
        self._callbacks = [
            (found, RunControl(folder, settings, self._asker(found.name))) for found in callbacks
        ]

    def attach(self, job: Job, optimizer: torch.optim.Optimizer, guards: Guards) -> None:
        """Let the callbacks see a model, and end the run that trains it."""

        def look(call: Callable[[], Any]) -> Any:
            was_training = job.model.training
            job.model.eval()
            try:
                with torch.inference_mode(), job.precision.autocast():
                    return call()
            finally:
                job.model.train(was_training)

        self._job = job
        self._look = on_averaged_weights(optimizer, look)
        self._ask_end = guards.ask_end

    def detach(self) -> None:
        """Let go of the model and of what trains it."""
        self._job: Job | None = None
        self._look: Callable[[Callable[[], Any]], Any] = lambda call: call()
        self._ask_end: Callable[[int, str], None] = lambda step, reason: None

    def stop_request(self, stop: StopRequest) -> StopRequest:
        """Return a request that also stops where a callback has failed."""
        # A property that can be set is an attribute to everybody but a type checker.
        return cast("StopRequest", _StopOnError(stop, self))

    def raise_error(self) -> None:
        """Raise what a callback has raised.

        Raises:
            RunError: With the file and the line.
        """
        if self.error is not None:
            raise self.error

    def on_start(self, progress: Progress) -> None:
        """See `Callback.on_start`."""
        self._step = progress.step
        self._call("on_start", replace(progress))
        self._tell(lambda observer: observer.on_start(progress))

    def on_step(self, record: StepRecord) -> None:
        """See `Callback.on_step`."""
        self._step = record.step
        self._call("on_step", record)
        self._tell(lambda observer: observer.on_step(record))

    def on_log(self, record: StepRecord) -> None:
        """See `Callback.on_log`."""
        whole = self._joined(record, "on_log")
        self._tell(lambda observer: observer.on_log(whole))

    def on_evaluation(self, record: StepRecord) -> None:
        """See `Callback.on_evaluation`."""
        self._step = record.step
        whole = self._joined(record, "on_evaluation")
        self._tell(lambda observer: observer.on_evaluation(whole))

    def on_samples(self, record: SampleRecord) -> None:
        """See `Callback.on_samples`."""
        self._call("on_samples", record)
        self._tell(lambda observer: observer.on_samples(record))

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """See `Callback.on_checkpoint`."""
        self._call("on_checkpoint", step, path)
        self._tell(lambda observer: observer.on_checkpoint(step, path, seconds))

    def on_end(self, progress: Progress) -> None:
        """See `Callback.on_end`."""
        self._ask_end = lambda step, reason: None
        self._call("on_end", replace(progress))
        self._tell(lambda observer: observer.on_end(progress))

    def get_state(self) -> dict[str, Any]:
        """Return the states of the callbacks that have one, by name."""
        found: dict[str, Any] = {}
        for callback, _ in self._callbacks:
            if callback.hook("get_state"):
                with self._guarded(callback, "get_state"):
                    state = callback.instance.get_state()
                    json.dumps(state)  # Here, where an error has a line of the user's.
                    found[callback.name] = state
        return found

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Give the callbacks their states back; one that had none keeps what it has."""
        for callback, _ in self._callbacks:
            if callback.name in state and callback.hook("set_state"):
                with self._guarded(callback, "set_state"):
                    callback.instance.set_state(state[callback.name])

    def _joined(self, record: StepRecord, hook: str) -> StepRecord:
        """Return a record with what the callbacks add to it."""
        metrics: dict[str, float] = {}
        for callback, control in self._callbacks:
            method = callback.hook(hook)
            if method is None or self.error is not None:
                continue
            with self._guarded(callback, hook):
                if hook == "on_evaluation":
                    found = self._looking_at_model(method, record, control)
                else:
                    found = method(record, control)
                taken = {*record.metrics, *metrics, *_OF_A_RECORD}
                metrics |= _checked({} if found is None else found, taken)
        if metrics:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self._say(f"step {record.step:5}  {shown}")
        return replace(record, metrics={**record.metrics, **metrics})

    def _looking_at_model(self, method: Any, record: StepRecord, control: RunControl) -> Any:
        assert self._job is not None, "the loop attaches a model before it begins"
        model, tokenizer = self._job.model, self._job.data.tokenizer
        return self._look(lambda: method(record, control, model, tokenizer))

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback, control in self._callbacks:
            method = callback.hook(hook)
            if method is not None and self.error is None:
                with self._guarded(callback, hook):
                    method(*arguments, control)

    def _tell(self, message: Callable[[Observer], Any]) -> None:
        for observer in self._observers:
            message(observer)

    def _asker(self, name: str) -> Callable[[str], None]:
        return lambda reason: self._ask_end(self._step, f"{name} ends the run: {reason}")

    @contextmanager
    def _guarded(self, callback: NamedCallback, hook: str) -> Generator[None]:
        """Keep the run's random state, and what a callback raises."""
        try:
            with _random_state_kept():
                yield
        except Exception as error:  # the user's code may raise any
            self.error = RunError(
                f"the callback {callback.name} failed in {hook} at step {self._step}: "
                f"{type(error).__name__}: {error}",
                where=callback.place(hook, error),
                mend="What was trained is in the newest checkpoint. Mend the callback, or take it "
                "out of callbacks, and go on with --resume_from_checkpoint.",
            )
            self.error.__cause__ = error


class _StopOnError:
    """Asks to stop where somebody else does, and where a callback has failed."""

    def __init__(self, stop: StopRequest, callbacks: Callbacks) -> None:
        self._stop = stop
        self._callbacks = callbacks

    @property
    def has_work(self) -> bool:
        return self._stop.has_work

    @has_work.setter
    def has_work(self, value: bool) -> None:
        self._stop.has_work = value

    @property
    def requested(self) -> bool:
        return self._stop.requested or self._callbacks.error is not None

    def take_checkpoint_request(self) -> bool:
        return self._stop.take_checkpoint_request()


def _checked(found: Any, taken: set[str]) -> dict[str, float]:
    """Return a callback's metrics.

    Raises:
        TypeError: They are no mapping from names to numbers.
        ValueError: A number is not finite, or a name is taken.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"it returned {found!r}, which is no dict of metrics")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Real):
            raise TypeError(f"the metric {name!r} is {value!r}, which is no number under a name")
        if not math.isfinite(value):
            raise ValueError(f"the metric {name} is {value!r}; give finite numbers, or none")
        if name in taken:
            raise ValueError(f"the name {name} is taken; give the metric another one")
    return {name: float(value) for name, value in found.items()}


@contextmanager
def _random_state_kept() -> Generator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
