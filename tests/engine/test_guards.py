"""What is said, borne and refused when numbers go wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from luthier.engine.guards import SPIKE_MIN_STEPS, DivergedError, Event, Guards
from luthier.engine.meter import StepOutcome
from luthier.engine.settings import GuardSettings


def outcome(step: int, weight: float = 1.0) -> StepOutcome:
    return StepOutcome(
        step=step,
        loss_total=torch.tensor(0.0),
        loss_weight=weight,
        num_tokens=1,
        num_supervised=1,
        num_rows=1,
        grad_norm=torch.tensor(0.0),
        learning_rate=0.1,
        rows=(7, 9),
    )


def guards_of(**settings: Any) -> tuple[Guards, list[Event]]:
    events: list[Event] = []
    return Guards(GuardSettings(**settings), events.append), events


def see_losses(guards: Guards, *losses: float, first: int = 1) -> None:
    for step, loss in enumerate(losses, start=first):
        guards.see_step(outcome(step), loss, 1.0)


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ((math.nan, 1.0), "the loss of step 3 is nan"),
        ((1.0, math.inf), "gradient of step 3 is inf"),
    ],
)
def test_a_bad_step_is_recorded_with_its_rows(numbers: tuple[float, float], what: str) -> None:
    guards, events = guards_of()
    guards.see_step(outcome(3), *numbers)
    (event,) = events
    assert (event.kind, event.step, event.rows) == ("nonfinite", 3, (7, 9))
    assert event.message.endswith(f"{what}; the step was not taken")


def test_bad_steps_count_in_a_row() -> None:
    guards, events = guards_of(max_nonfinite_steps=2)
    see_losses(guards, math.nan, math.nan, 1.0, math.nan, math.nan)
    with pytest.raises(DivergedError, match=r"step 6 is inf.*, nor were the 2 before it") as caught:
        see_losses(guards, math.inf, first=6)
    assert caught.value.first_step == 4
    assert caught.value.pass_over == (3, 4, 5, 6)
    assert len(events) == 5
    assert caught.value.mend is not None
    assert "learning_rate" in caught.value.mend


def test_the_first_step_has_none_before_it() -> None:
    guards, _ = guards_of(max_nonfinite_steps=0)
    with pytest.raises(DivergedError, match=r"step 1 is nan; the step was not taken\n") as caught:
        see_losses(guards, math.nan)
    assert caught.value.pass_over == (1,)


def test_a_scaled_gradient_may_overflow_and_a_loss_may_not() -> None:
    guards, events = guards_of(max_nonfinite_steps=0)
    guards.may_overflow = True
    guards.see_step(outcome(1), 1.0, math.inf)
    assert events == []
    with pytest.raises(DivergedError, match="the loss of step 2 is inf"):
        guards.see_step(outcome(2), math.inf, math.inf)


def usual(count: int = SPIKE_MIN_STEPS) -> list[float]:
    """Losses of median 2 and median deviation 0.1."""
    return [2.0 + 0.1 * (-1) ** step for step in range(count)]


def test_a_spike_lies_far_above_what_is_usual() -> None:
    guards, events = guards_of(loss_spike_threshold=10)
    see_losses(guards, *usual(), 2.9, 4.3)
    (event,) = events
    assert (event.kind, event.step, event.rows) == ("spike", SPIKE_MIN_STEPS + 2, (7, 9))
    assert "jumped to 4.300" in event.message


def test_there_is_no_spike_before_enough_steps_nor_without_a_threshold() -> None:
    for settings, losses in (
        ({}, usual(SPIKE_MIN_STEPS - 1)),
        ({"loss_spike_threshold": 0}, usual()),
    ):
        guards, events = guards_of(**settings)
        see_losses(guards, *losses, 1000.0)
        assert events == []


def test_a_flat_curve_has_no_spikes_of_a_hair() -> None:
    guards, events = guards_of(loss_spike_threshold=10)
    see_losses(guards, *[2.0] * SPIKE_MIN_STEPS, 2.19, 2.3)
    assert [event.step for event in events] == [SPIKE_MIN_STEPS + 2]


def test_a_spike_can_send_the_run_back() -> None:
    guards, _ = guards_of(on_loss_spike="rollback")
    with pytest.raises(DivergedError, match="jumped to 9") as caught:
        see_losses(guards, *usual(), 9.0)
    assert caught.value.pass_over == (SPIKE_MIN_STEPS, SPIKE_MIN_STEPS + 1)


def test_steps_without_weight_have_no_loss_to_judge() -> None:
    guards, events = guards_of()
    see_losses(guards, *usual())
    guards.see_step(outcome(30, weight=0.0), 0.0, 0.0)
    assert events == []


def test_overfitting_is_said_once() -> None:
    guards, events = guards_of()
    for step, loss in enumerate([3.0, 2.0, 2.1, 2.2, 2.3, 2.4], start=1):
        guards.see_evaluation(step, loss)
    (event,) = events
    assert (event.kind, event.step) == ("overfitting", 5)
    assert "lowest at step 2" in event.message
    assert not guards.wants_end


def test_patience_counts_evaluations_without_a_lower_loss() -> None:
    guards, events = guards_of(early_stopping_patience=2)
    for step, loss in enumerate([2.0, 2.0, 1.9, math.nan], start=1):
        guards.see_evaluation(step, loss)
    assert not guards.wants_end
    guards.see_evaluation(5, 1.95)
    assert guards.wants_end
    (event,) = events
    assert (event.kind, event.step) == ("early_stop", 5)
    assert "2 evaluations brought no lower validation loss" in event.message
    assert "lowest at step 3" in event.message


def test_the_state_goes_on_judging() -> None:
    settings: dict[str, Any] = {"max_nonfinite_steps": 2, "early_stopping_patience": 2}
    guards, _ = guards_of(**settings)
    see_losses(guards, *usual(), math.nan, math.nan)
    guards.pass_over.add(4)
    for step, loss in enumerate([2.0, 3.0], start=1):
        guards.see_evaluation(step, loss)
    resumed, events = guards_of(**settings)
    resumed.pass_over.add(50)
    resumed.set_state(json.loads(json.dumps(guards.get_state())))
    assert resumed.pass_over == {4, 50}
    assert not resumed.wants_end
    resumed.see_evaluation(3, 2.5)
    assert resumed.wants_end
    with pytest.raises(DivergedError):
        see_losses(resumed, math.nan, first=23)
    assert [event.kind for event in events] == ["early_stop", "nonfinite"]
    fresh, spikes = guards_of()
    fresh.set_state(guards.get_state())
    see_losses(fresh, 9.0)
    assert [event.kind for event in spikes] == ["spike"]


def test_an_end_that_is_asked_for_is_kept() -> None:
    guards, events = guards_of()
    guards.ask_end(7, "enough")
    guards.ask_end(8, "said twice")
    assert guards.wants_end
    assert events == [Event("callback_stop", 7, "enough")]
    later, told = guards_of()
    later.set_state(json.loads(json.dumps(guards.get_state())))
    assert later.wants_end
    later.see_evaluation(9, 1.0)
    assert not told, "no loss has gone stale"


def test_a_state_from_before_ends_could_be_asked_for() -> None:
    guards, _ = guards_of()
    state = {k: v for k, v in guards.get_state().items() if k != "is_end_asked"}
    guards.set_state(state)
    assert not guards.wants_end
