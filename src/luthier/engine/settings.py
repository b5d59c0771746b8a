"""Settings of the engine: optimiser, schedule, precision, length of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from luthier.contracts.settings import Settings


class AdamNumbers(Settings):
    """What every AdamW takes, whoever computes it."""

    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of the mean of the gradients."""

    adam_beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the mean of the squared gradients."""

    adam_epsilon: float = Field(default=1e-8, gt=0.0)
    """Added to the denominator."""


class AdamWOptimizer(AdamNumbers):
    """AdamW (arXiv 1711.05101), fused where the device has it."""

    optim: Literal["adamw_torch"] = "adamw_torch"
    """Optimiser: adamw_torch; lion, muon (full and freeze alone) and adafactor keep less state; the
    8-bit ones least, through bitsandbytes. Lion wants a third to a tenth of AdamW's learning rate,
    muon takes the same. schedule_free_adamw averages weights in place of a falling rate."""


class AdafactorOptimizer(Settings):
    """Adafactor (arXiv 1804.04235) with the run's learning rate: less state than AdamW."""

    optim: Literal["adafactor"] = "adafactor"
    """See adamw_torch."""


class LionNumbers(Settings):
    """What every Lion takes."""

    lion_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Share of the momentum in the update, whose signs are the step."""

    lion_beta2: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Decay of the momentum."""


class LionOptimizer(LionNumbers):
    """Lion (arXiv 2302.06675): steps of one size by sign, half the state of AdamW."""

    optim: Literal["lion"] = "lion"
    """See adamw_torch."""


class MuonOptimizer(AdamNumbers):
    """Muon for the matrices of the layers, AdamW for all else (arXiv 2502.16982)."""

    optim: Literal["muon"] = "muon"
    """See adamw_torch."""

    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    """Decay of the momentum of the matrices."""


class ScheduleFreeOptimizer(AdamNumbers):
    """AdamW on an average of the weights (arXiv 2405.15682), which needs no falling rate."""

    optim: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    """See adamw_torch."""

    adam_beta1: float = Field(default=0.9, gt=0.0, lt=1.0)
    """Share of the average in the weights at which gradients are taken."""


class AdamW8bitOptimizer(AdamNumbers):
    """AdamW with its state in 8 bits (arXiv 2110.02861), through bitsandbytes."""

    optim: Literal["adamw_8bit"] = "adamw_8bit"
    """See adamw_torch."""


class PagedAdamW8bitOptimizer(AdamNumbers):
    """The same, its state moved out of a GPU's memory where that runs short."""

    optim: Literal["paged_adamw_8bit"] = "paged_adamw_8bit"
    """See adamw_torch."""


class Lion8bitOptimizer(LionNumbers):
    """Lion with its state in 8 bits, through bitsandbytes."""

    optim: Literal["lion_8bit"] = "lion_8bit"
    """See adamw_torch."""


AnyOptimizer = (
    AdamWOptimizer
    | AdafactorOptimizer
    | LionOptimizer
    | MuonOptimizer
    | ScheduleFreeOptimizer
    | AdamW8bitOptimizer
    | PagedAdamW8bitOptimizer
    | Lion8bitOptimizer
)

OptimizerSettings = Annotated[AnyOptimizer, Field(discriminator="optim")]


_USED_BY = {
    "min_lr_ratio": ("cosine_with_min_lr", "polynomial", "warmup_stable_decay"),
    "lr_power": ("polynomial",),
    "lr_decay_ratio": ("warmup_stable_decay",),
    "lr_decay_type": ("warmup_stable_decay",),
}
"""Settings of single shapes of the schedule, and which they are."""


class ScheduleSettings(Settings):
    """The learning rate and how it changes."""

    learning_rate: float = Field(default=2e-5, gt=0.0)
    """Highest learning rate. LoRA wants about ten times that of full training."""

    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_min_lr",
        "constant",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
    ] = "linear"
    """Shape of the learning rate after warm-up."""

    warmup_ratio: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises from 0."""

    warmup_steps: int = Field(default=0, ge=0)
    """The same as a number of steps. Give one of the two."""

    min_lr_ratio: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Lowest learning rate as a share of the highest one: of cosine_with_min_lr (default 0.1),
    polynomial and warmup_stable_decay (default 0, and there warm-up begins at it)."""

    lr_power: float | None = Field(default=None, gt=0.0)
    """Exponent of polynomial: 1, the default, falls in a line; 2 falls fast, then slowly."""

    lr_decay_ratio: float | None = Field(default=None, gt=0.0, le=1.0)
    """Share of all steps in which warmup_stable_decay falls, at its end. Default: 0.1."""

    lr_decay_type: Literal["1-sqrt", "linear", "cosine"] | None = None
    """How warmup_stable_decay falls. Default: 1-sqrt, the best of them in arXiv 2405.18392."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay; never on biases and norms."""

    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Longest gradient; a longer one is scaled down. 0 switches clipping off."""

    @model_validator(mode="after")
    def _one_warmup(self) -> ScheduleSettings:
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("warmup_ratio and warmup_steps are both set: give one")
        return self

    @model_validator(mode="after")
    def _only_what_the_shape_uses(self) -> ScheduleSettings:
        for name, users in _USED_BY.items():
            if getattr(self, name) is not None and self.lr_scheduler_type not in users:
                raise ValueError(
                    f"{name} is not used by lr_scheduler_type: {self.lr_scheduler_type}, "
                    f"only by {' or '.join(users)}"
                )
        return self


class TrainingSettings(Settings):
    """How long, and in which precision."""

    num_train_epochs: float = Field(default=3.0, gt=0.0)
    """Passes over the training rows."""

    max_steps: int | None = Field(default=None, gt=0)
    """Optimiser steps; overrides `num_train_epochs`."""

    bf16: bool | None = None
    """Compute in bfloat16. Default: where the device computes it natively."""

    fp16: bool = False
    """Compute in float16 with loss scaling (CUDA only)."""

    eval_strategy: Literal["auto", "no", "steps", "epoch"] = "auto"
    """When to evaluate. `auto`: every `eval_steps` where set, else after each epoch."""

    eval_steps: int | None = Field(default=None, gt=0)
    """Optimiser steps between evaluations."""

    eval_on_start: bool = True
    """Evaluate the untrained model first, so that a run shows what it changed."""

    save_strategy: Literal["auto", "no", "steps", "epoch"] = "auto"
    """When to write checkpoints. `auto`: every `save_steps` where set, else after each epoch."""

    save_steps: int | None = Field(default=None, gt=0)
    """Optimiser steps between checkpoints."""

    logging_steps: int = Field(default=10, gt=0)
    """Optimiser steps between lines of the log."""

    @model_validator(mode="after")
    def _check(self) -> TrainingSettings:
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 are both set: give one")
        for action in ("eval", "save"):
            strategy = getattr(self, f"{action}_strategy")
            steps = getattr(self, f"{action}_steps")
            if strategy == "steps" and steps is None:
                raise ValueError(f"{action}_strategy: steps needs {action}_steps")
            if strategy in ("no", "epoch") and steps is not None:
                raise ValueError(f"{action}_steps is not used by {action}_strategy: {strategy}")
        return self


class GuardSettings(Settings):
    """What is borne, and what is done, when a run's numbers go wrong."""

    max_nonfinite_steps: int = Field(default=3, ge=0)
    """Steps in a row whose loss or gradient may be no finite number; each is passed over, and its
    rows are recorded. At one more the run goes back, or stops."""

    max_rollbacks: int = Field(default=1, ge=0)
    """Times that a run goes back to its last good checkpoint and passes over the rows that led
    astray, before it stops."""

    loss_spike_threshold: float = Field(default=10.0, ge=0.0)
    """A step's loss is a spike if it lies so many median absolute deviations above the median of
    the last 100 steps. 0 looks for none."""

    on_loss_spike: Literal["warn", "rollback"] = "warn"
    """At a spike: say so, or go back to the last good checkpoint and pass over its rows."""

    early_stopping_patience: int | None = Field(default=None, gt=0)
    """Evaluations without a lower validation loss after which the run ends."""
