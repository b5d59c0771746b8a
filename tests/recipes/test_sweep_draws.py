"""What is drawn follows from the seed and the trials before, in one piece or after a stop."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest

from luthier.core.errors import MissingExtraError
from luthier.recipes.sweep_draws import FEWEST_FOR_IMPORTANCE, importance, open_trial
from luthier.recipes.sweep_record import SweepTrial

RANGES = {
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "lora_rank": [8, 16, 32],
    "lora_alpha": {"low": 8, "high": 64, "step": 8},
    "num_train_epochs": {"low": 1, "high": 3, "step": 0.5},
    "warmup_steps": {"low": 1, "high": 100, "log": True},
    "weight_decay": {"low": 0, "high": 0.1},
}


def drawn(plan: Any, count: int) -> list[SweepTrial]:
    """Draw trials whose value is the distance of the learning rate from 1e-4."""
    done: list[SweepTrial] = []
    for number in range(count):
        params = open_trial(plan, done).params
        value = abs(math.log10(float(params["learning_rate"])) + 4)  # type: ignore[arg-type]
        done.append(SweepTrial(number, params, "finished", value, (value,)))
    return done


def test_values_stay_in_their_ranges_and_have_their_types(fake_sweep: Any) -> None:
    plan = fake_sweep.plan(ranges=RANGES)
    for trial in drawn(plan, 12):
        params: dict[str, Any] = dict(trial.params)
        assert list(params) == list(RANGES)
        assert 1e-5 <= params["learning_rate"] <= 1e-3
        assert params["lora_rank"] in (8, 16, 32)
        assert params["lora_alpha"] in range(8, 65, 8)
        assert params["num_train_epochs"] in (1.0, 1.5, 2.0, 2.5, 3.0)
        assert 1 <= params["warmup_steps"] <= 100
        assert isinstance(params["warmup_steps"], int)
        plan.trial_config(params, "x")


def test_a_step_ends_at_the_last_value_that_it_reaches(fake_sweep: Any) -> None:
    ranges = {"lora_alpha": {"low": 8, "high": 20, "step": 8}}
    plan = fake_sweep.plan(ranges=ranges, sampler="random")
    found = {
        open_trial(plan, [SweepTrial(0, {"lora_alpha": 8}, "failed")] * n).params["lora_alpha"]
        for n in range(12)
    }
    assert found == {8, 16}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sweep_that_went_on_draws_what_one_in_one_piece_draws(
    fake_sweep: Any, sampler: str
) -> None:
    plan = fake_sweep.plan(ranges=RANGES, sampler=sampler)
    whole = drawn(plan, 14)
    assert [t.params for t in drawn(plan, 14)] == [t.params for t in whole]
    assert open_trial(plan, whole[:13]).params == whole[13].params
    other = fake_sweep.plan("--seed", "7", ranges=RANGES, sampler=sampler)
    assert open_trial(other, []).params != whole[0].params


def test_values_that_were_drawn_before_a_stop_come_back(fake_sweep: Any) -> None:
    plan = fake_sweep.plan(ranges=RANGES)
    params = drawn(plan, 1)[0].params
    assert open_trial(plan, [], params).params == params


def test_trials_that_failed_or_were_pruned_are_learnt_from(fake_sweep: Any) -> None:
    plan = fake_sweep.plan(ranges=RANGES)
    params = drawn(plan, 1)[0].params
    done = [
        SweepTrial(0, params, "failed", cause="no memory"),
        SweepTrial(1, params, "pruned", reported=(2.0, 1.5)),
        SweepTrial(2, params, "pruned"),
    ]
    assert open_trial(plan, done).params.keys() == RANGES.keys()


@pytest.mark.parametrize(
    ("pruner", "direction", "value", "wanted"),
    [
        ("median", "minimize", 3.0, True),
        ("median", "minimize", 1.0, False),
        ("median", "maximize", 1.0, True),
        ("median", "maximize", 3.0, False),
        ("none", "minimize", 3.0, False),
    ],
)
def test_a_trial_behind_the_median_is_stopped(
    fake_sweep: Any, pruner: str, direction: str, value: float, wanted: bool
) -> None:
    plan = fake_sweep.plan(pruner=pruner, direction=direction, prune_after=2)
    params = {"learning_rate": 1e-4}
    done = [SweepTrial(n, params, "finished", 1.0, (2.0, 1.0)) for n in range(2)]
    trial = open_trial(plan, done)
    assert trial.report(value) is wanted
    assert trial.reported == [value]
    # With fewer trials behind it, none is stopped.
    assert open_trial(plan, done[:1]).report(value) is False


def test_the_setting_that_decides_is_the_most_important(fake_sweep: Any) -> None:
    ranges = {"weight_decay": {"low": 0, "high": 0.1}, "learning_rate": RANGES["learning_rate"]}
    plan = fake_sweep.plan(ranges=ranges, sampler="random")
    done = drawn(plan, 40)
    found = importance(plan, done)
    assert list(found) == ["learning_rate", "weight_decay"]
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3)
    assert found["learning_rate"] > 0.7
    assert importance(plan, done[: FEWEST_FOR_IMPORTANCE - 1]) == {}


def test_without_optuna_the_error_says_how_to_get_it(
    fake_sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_sweep.plan()
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="optuna, which is not installed") as caught:
        open_trial(plan, [])
    assert caught.value.mend == "Install it with: pip install 'luthier[sweep]'"
