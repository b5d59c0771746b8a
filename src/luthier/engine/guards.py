"""What a run does when its numbers go wrong: pass over a step, say so, go back, or end.

Comes in: the numbers of each step and of each evaluation, in their order. Goes out: an event for
everything that is out of the ordinary, and `DivergedError` where going on is of no use. The state
is part of a checkpoint, so that a run that goes on judges as if it had never stopped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from luthier.core.errors import RunError
from luthier.engine.meter import StepOutcome
from luthier.engine.settings import GuardSettings

SPIKE_WINDOW = 100
"""Losses of the newest steps that a step's loss is held against."""

SPIKE_MIN_STEPS = 20
"""With fewer losses than these, nobody knows yet what is usual."""

SMALLEST_SPREAD = 0.01
"""Share of the median, or of 1 if that is more, that the spread is taken for at least: a flat curve
has hardly any, and the loss of pairs that are all told apart comes near to 0."""

RISING_EVALUATIONS = 3
"""Evaluations in a row with a higher loss than the one before that are said to be overfitting."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something out of the ordinary.

    Attributes:
        kind: `nonfinite`, `spike`, `rollback`, `overfitting`, `early_stop` or `callback_stop`.
        step: The step that it happened at, from 1.
        message: What happened, as one sentence without its full stop.
        rows: Numbers of the prepared rows that the step was computed from.
    """

    kind: str
    step: int
    message: str
    rows: Sequence[int] = ()


class DivergedError(RunError):
    """Going on is of no use; going back to a checkpoint may be.

    Attributes:
        first_step: The first step that went wrong.
        pass_over: Steps whose rows are better not trained on: those that went wrong, and the one
            before them, whose update led there.
    """

    first_step: int = 0
    pass_over: tuple[int, ...] = ()

    @classmethod
    def at(cls, problem: str, steps: Sequence[int]) -> DivergedError:
        """Build the error for steps that went wrong one after another."""
        error = cls(
            problem,
            mend="Lower learning_rate or set max_grad_norm: 1.0. "
            "The newest checkpoint is good: go on from it with --resume_from_checkpoint.",
        )
        error.first_step = steps[0]
        error.pass_over = tuple(step for step in (steps[0] - 1, *steps) if step > 0)
        return error


@dataclass(slots=True)
class Evaluations:
    """What the evaluations so far came to."""

    last: float | None = None
    best: float | None = None
    best_step: int = 0
    num_rising: int = 0
    num_since_best: int = 0


@dataclass(slots=True)
class Guards:
    """Judges the numbers of a run; implements `Resumable`.

    Attributes:
        settings: How much is borne.
        record: Told every event.
        may_overflow: float16 gradients overflow now and then by design: the scaler skips the step.
        pass_over: Steps that take no rows.
    """

    settings: GuardSettings = field(default_factory=GuardSettings)
    record: Callable[[Event], None] = lambda event: None
    may_overflow: bool = False
    pass_over: set[int] = field(default_factory=set)
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=SPIKE_WINDOW))
    _bad_steps: list[int] = field(default_factory=list)
    _evaluations: Evaluations = field(default_factory=Evaluations)
    _is_end_asked: bool = False

    @property
    def wants_end(self) -> bool:
        """Whether the run is over: somebody asks for it, or evaluations brought nothing new."""
        return self._is_end_asked or self._is_stale

    @property
    def _is_stale(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and self._evaluations.num_since_best >= patience

    def ask_end(self, step: int, reason: str) -> None:
        """Let the run end early, for a reason that the loop does not know.

        Args:
            step: The newest step that is done.
            reason: For the record, as one sentence without its full stop.
        """
        if not self._is_end_asked:
            self.record(Event("callback_stop", step, reason))
        self._is_end_asked = True

    def see_step(self, outcome: StepOutcome, loss_total: float, grad_norm: float) -> None:
        """Judge a step's numbers. Where they are not finite, the step was not taken.

        Args:
            outcome: The step.
            loss_total: Its summed loss.
            grad_norm: The length of its gradient before clipping.

        Raises:
            DivergedError: Too many steps in a row were not finite, or the loss rose too far and the
                settings say to go back then.
        """
        what = self._not_finite(loss_total, grad_norm)
        if what is not None:
            self._bad_steps.append(outcome.step)
            problem = f"the {what} of step {outcome.step} is {{}}; the step was not taken"
            problem = problem.format(loss_total if what == "loss" else grad_norm)
            self.record(Event("nonfinite", outcome.step, problem, outcome.rows))
            if len(self._bad_steps) > self.settings.max_nonfinite_steps:
                before = len(self._bad_steps) - 1
                more = f", nor were the {before} before it" if before > 1 else ""
                more = ", nor was the one before it" if before == 1 else more
                raise DivergedError.at(problem + more, self._bad_steps)
            return
        self._bad_steps.clear()
        if outcome.loss_weight:
            self._see_loss(outcome, loss_total / outcome.loss_weight)

    def _not_finite(self, loss_total: float, grad_norm: float) -> str | None:
        if not math.isfinite(loss_total):
            return "loss"
        return None if self.may_overflow or math.isfinite(grad_norm) else "gradient"

    def _see_loss(self, outcome: StepOutcome, loss: float) -> None:
        limit = self._spike_limit()
        self._losses.append(loss)
        if limit is None or loss <= limit:
            return
        usual = median(self._losses)
        problem = f"the loss of step {outcome.step} jumped to {loss:.3f}; {usual:.3f} is usual"
        self.record(Event("spike", outcome.step, problem, outcome.rows))
        if self.settings.on_loss_spike == "rollback":
            raise DivergedError.at(problem, [outcome.step])

    def _spike_limit(self) -> float | None:
        threshold = self.settings.loss_spike_threshold
        if not threshold or len(self._losses) < SPIKE_MIN_STEPS:
            return None
        usual = median(self._losses)
        spread = median(abs(loss - usual) for loss in self._losses)
        return usual + threshold * max(spread, SMALLEST_SPREAD * max(1.0, abs(usual)))

    def see_evaluation(self, step: int, loss: float) -> None:
        """Judge a validation loss; one that is no number is worse than any."""
        seen = self._evaluations
        rises = seen.last is not None and not loss <= seen.last
        seen.num_rising = seen.num_rising + 1 if rises else 0
        if seen.best is None or loss < seen.best:
            seen.best, seen.best_step, seen.num_since_best = loss, step, 0
        else:
            seen.num_since_best += 1
        seen.last = loss if math.isfinite(loss) else seen.last
        best = f"it was lowest at step {seen.best_step}"
        if seen.num_rising == RISING_EVALUATIONS:
            rising = f"the validation loss has risen {RISING_EVALUATIONS} times in a row"
            self.record(Event("overfitting", step, f"{rising}: the model overfits; {best}"))
        if self._is_stale:
            stale = f"{seen.num_since_best} evaluations brought no lower validation loss"
            self.record(Event("early_stop", step, f"{stale}: the run ends here; {best}"))

    def get_state(self) -> dict[str, Any]:
        """Return what was seen, as plain JSON."""
        return {
            "pass_over": sorted(self.pass_over),
            "losses": list(self._losses),
            "bad_steps": list(self._bad_steps),
            "evaluations": asdict(self._evaluations),
            "is_end_asked": self._is_end_asked,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what `get_state` returned. Steps to pass over are added to those known."""
        self.pass_over |= set(state["pass_over"])
        self._losses = deque(state["losses"], maxlen=SPIKE_WINDOW)
        self._bad_steps = list(state["bad_steps"])
        self._evaluations = Evaluations(**state["evaluations"])
        self._is_end_asked = state.get("is_end_asked", False)  # Older checkpoints don't know it.
