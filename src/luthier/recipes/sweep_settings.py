"""Settings of a sweep: the `sweep` section of a settings file, which no single run reads."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from luthier.contracts.settings import Settings

_LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte")

Choice = bool | int | float | str | None
"""A value that a list of choices can hold."""


class Range(Settings):
    """Numbers between two ends, both included. A setting of whole numbers gets whole numbers."""

    low: int | float
    """The least."""

    high: int | float
    """The greatest."""

    log: bool = False
    """Draw by the logarithm: as many values between 1e-5 and 1e-4 as between 1e-4 and 1e-3."""

    step: int | float | None = Field(default=None, gt=0)
    """Draw `low`, `low + step`, `low + 2 step` and so on alone."""

    @model_validator(mode="after")
    def _holds_numbers(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g}, and must be below high, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, and low is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step are both set: give one")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step is {self.step:g}: it leads from low past high at once")
        return self


class SweepSettings(Settings):
    """Which settings are tried, how often, and what makes a trial the best."""

    ranges: dict[str, Range | list[Choice]] = Field(min_length=1)
    """For each setting that varies, by name: {low, high, log, step}, or a list of values."""

    num_trials: int = Field(default=20, gt=0)
    """Trials of the whole sweep, those before a stop included."""

    metric: str = "eval_loss"
    """What is compared: a metric of metrics.jsonl, as it stands at a run's end."""

    direction: Literal["minimize", "maximize"] | None = None
    """Whether the best trial has the lowest or the highest value. Default: the lowest of a loss, a
    perplexity or bits per byte; for any other metric it must be named."""

    sampler: Literal["tpe", "random"] = "tpe"
    """How values are drawn: tpe (after ten trials near those that did well; NeurIPS 2011, Bergstra
    et al.) or random."""

    pruner: Literal["median", "none"] = "median"
    """Which trials are stopped early: median (those that are behind the median of the trials
    before, at the same number of validations) or none."""

    prune_after: int = Field(default=5, gt=0)
    """Trials that must have finished before one is stopped early."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_loss_less_is_better(cls, values: dict[str, Any]) -> dict[str, Any]:
        metric = str(values.get("metric", "eval_loss"))
        if values.get("direction") is None and metric.endswith(_LESS_IS_BETTER):
            return values | {"direction": "minimize"}
        return values

    @model_validator(mode="after")
    def _knows_what_is_better(self) -> SweepSettings:
        if self.direction is None:
            raise ValueError(f"metric is {self.metric}: say by direction whether more is better")
        return self

    @model_validator(mode="after")
    def _holds_choices(self) -> SweepSettings:
        for name, values in self.ranges.items():
            if isinstance(values, Range):
                continue
            if not values:
                raise ValueError(f"the range of {name} is empty")
            shown = [repr(value) for value in values]
            twice = next((v for v in shown if shown.count(v) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice} stands twice in the range of {name}")
        return self
