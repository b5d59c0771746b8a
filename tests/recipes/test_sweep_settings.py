"""The `sweep` section refuses ranges that hold no value."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from luthier.recipes.sweep_settings import Range, SweepSettings


def test_the_defaults_minimize_the_validation_loss() -> None:
    settings = SweepSettings.model_validate({"ranges": {"lora_rank": [8, 16]}})
    assert (settings.num_trials, settings.metric, settings.direction) == (
        20,
        "eval_loss",
        "minimize",
    )
    assert (settings.sampler, settings.pruner, settings.prune_after) == ("tpe", "median", 5)


def test_a_list_keeps_the_types_of_its_values() -> None:
    values = [8, 8.5, True, "all", None]
    settings = SweepSettings.model_validate({"ranges": {"x": values}})
    assert [type(v) for v in settings.ranges["x"]] == [type(v) for v in values]  # type: ignore[union-attr]


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "eval_perplexity", "eval_bits_per_byte"])
def test_of_a_loss_less_is_better(metric: str) -> None:
    given = {"ranges": {"lora_rank": [8]}, "metric": metric}
    assert SweepSettings.model_validate(given).direction == "minimize"
    upward = SweepSettings.model_validate(given | {"direction": "maximize"})
    assert upward.direction == "maximize"


def test_of_any_other_metric_the_direction_is_asked_for() -> None:
    given = {"ranges": {"lora_rank": [8]}, "metric": "eval_rewards/margins"}
    with pytest.raises(ValidationError, match="say by direction whether more is better"):
        SweepSettings.model_validate(given)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"low": 3, "high": 1}, "low is 3, and must be below high, 1"),
        ({"low": 1, "high": 1}, "low is 1, and must be below high, 1"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0, and low is 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "log and step are both set"),
        ({"low": 1, "high": 3, "step": 5}, "step is 5: it leads from low past high at once"),
        ({"low": 1, "high": 3, "step": 0}, "greater than 0"),
        ({"low": 1}, "Field required"),
        ({"low": 1, "high": 3, "hihg": 5}, "Extra inputs are not permitted"),
    ],
)
def test_a_range_that_holds_nothing_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Range.model_validate(values)


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ({}, "at least 1 item"),
        ({"lora_rank": []}, "the range of lora_rank is empty"),
        ({"lora_rank": [8, 16, 8]}, "8 stands twice in the range of lora_rank"),
    ],
)
def test_an_empty_list_is_refused(ranges: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SweepSettings.model_validate({"ranges": ranges})


def test_reading_a_sweep_loads_neither_torch_nor_optuna() -> None:
    heavy = "{'torch', 'numpy', 'optuna'}"
    code = f"import sys, luthier.recipes.sweep_plan; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
