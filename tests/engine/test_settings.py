"""What the engine's settings accept, and which combinations they refuse."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from luthier.engine.settings import (
    AdafactorOptimizer,
    AdamWOptimizer,
    LionOptimizer,
    MuonOptimizer,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)

OPTIMIZER: TypeAdapter[Any] = TypeAdapter(OptimizerSettings)


def test_the_optimizer_is_chosen_by_name() -> None:
    assert OPTIMIZER.validate_python({"optim": "adamw_torch"}) == AdamWOptimizer()
    assert OPTIMIZER.validate_python({"optim": "adafactor"}) == AdafactorOptimizer()
    assert OPTIMIZER.validate_python({"optim": "muon"}).muon_momentum == 0.95
    assert OPTIMIZER.validate_python({"optim": "lion_8bit", "lion_beta2": 0.98}).lion_beta2 == 0.98
    with pytest.raises(ValidationError, match="sgd"):
        OPTIMIZER.validate_python({"optim": "sgd"})
    with pytest.raises(ValidationError, match="adam_beta1"):
        OPTIMIZER.validate_python({"optim": "adafactor", "adam_beta1": 0.9})


def test_one_warmup() -> None:
    assert ScheduleSettings(warmup_ratio=0.1).warmup_steps == 0
    with pytest.raises(ValidationError, match="warmup_ratio and warmup_steps are both set"):
        ScheduleSettings(warmup_ratio=0.1, warmup_steps=5)


@pytest.mark.parametrize(
    ("name", "value", "users"),
    [
        ("min_lr_ratio", 0.0, ["cosine_with_min_lr", "polynomial", "warmup_stable_decay"]),
        ("lr_power", 2.0, ["polynomial"]),
        ("lr_decay_ratio", 0.2, ["warmup_stable_decay"]),
        ("lr_decay_type", "linear", ["warmup_stable_decay"]),
    ],
)
def test_a_shape_takes_its_own_settings_alone(name: str, value: Any, users: list[str]) -> None:
    every = get_args(ScheduleSettings.model_fields["lr_scheduler_type"].annotation)
    for shape in every:
        values: dict[str, Any] = {"lr_scheduler_type": shape, name: value}
        if shape in users:
            assert getattr(ScheduleSettings(**values), name) == value
        else:
            with pytest.raises(ValidationError, match=f"{name} is not used by .*: {shape}, only"):
                ScheduleSettings(**values)


def test_one_precision() -> None:
    assert TrainingSettings().bf16 is None
    with pytest.raises(ValidationError, match="bf16 and fp16 are both set"):
        TrainingSettings(bf16=True, fp16=True)


@pytest.mark.parametrize("action", ["eval", "save"])
def test_strategies_and_steps_agree(action: str) -> None:
    def settings(**values: Any) -> TrainingSettings:
        return TrainingSettings(**{f"{action}_{name}": v for name, v in values.items()})

    assert getattr(settings(steps=5), f"{action}_steps") == 5
    settings(strategy="steps", steps=5)
    with pytest.raises(ValidationError, match=f"{action}_strategy: steps needs {action}_steps"):
        settings(strategy="steps")
    for unused in ("no", "epoch"):
        message = f"{action}_steps is not used by {action}_strategy: {unused}"
        with pytest.raises(ValidationError, match=message):
            settings(strategy=unused, steps=5)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (ScheduleSettings, "learning_rate", 0),
        (ScheduleSettings, "warmup_ratio", 1.0),
        (ScheduleSettings, "warmup_steps", -1),
        (ScheduleSettings, "min_lr_ratio", 1.0),
        (ScheduleSettings, "lr_power", 0),
        (ScheduleSettings, "lr_decay_ratio", 0),
        (ScheduleSettings, "lr_decay_type", "sqrt"),
        (ScheduleSettings, "weight_decay", -0.1),
        (ScheduleSettings, "max_grad_norm", -1),
        (ScheduleSettings, "lr_scheduler_type", "cosine_with_restarts"),
        (TrainingSettings, "num_train_epochs", 0),
        (TrainingSettings, "max_steps", 0),
        (TrainingSettings, "logging_steps", 0),
        (TrainingSettings, "eval_steps", 0),
        (TrainingSettings, "save_steps", 0),
        (AdamWOptimizer, "adam_beta2", 1.0),
        (LionOptimizer, "lion_beta1", 1.0),
        (MuonOptimizer, "muon_momentum", 1.0),
        (AdamWOptimizer, "adam_epsilon", 0),
    ],
)
def test_impossible_values_are_refused(model: Any, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        model.model_validate({name: value})
