"""Settings of rollouts: how answers are drawn in training, and how they are rewarded."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from luthier.contracts.settings import Settings


class RolloutSettings(Settings):
    """How the answers that are trained on come about. The names are TRL's where it has them."""

    reward_funcs: list[str] = Field(default_factory=list)
    """What makes an answer better: math_answer, format, length, or FILE.py:FUNCTION of your own.
    Stage grpo needs at least one."""

    reward_weights: list[float] | None = None
    """Factor of each reward function, in their order. Default: 1 each."""

    reward_pattern: str | None = None
    """For the reward format: a regular expression that the whole answer must match (Python's; a dot
    matches line ends too)."""

    reward_max_chars: int = Field(default=1000, gt=0)
    """For the reward length: characters up to which it is 0. Beyond them it falls evenly, to -1 at
    twice as many."""

    num_generations: int = Field(default=8, ge=2)
    """Answers to each prompt. They are a group: an answer is held against the others of its own."""

    max_completion_length: int = Field(default=256, ge=1)
    """Longest answer, in tokens; the prompt before it has up to cutoff_len."""

    temperature: float = Field(default=1.0, gt=0.0, le=10.0)
    """Divides the logits that answers are drawn from; training divides them too."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Draw from the smallest set of tokens that has this much probability together."""

    rollout_batch_size: int = Field(default=32, gt=0)
    """Answers that are drawn at once."""

    num_iterations: int = Field(default=1, gt=0)
    """Optimiser steps on the same answers. From the second on the ratio of the policies is clipped;
    with 1 it is 1, and there is nothing to clip."""

    scale_rewards: bool = True
    """Divide a group's advantages by the standard deviation of its rewards. false: only the mean is
    taken off (Dr. GRPO, arXiv 2503.20783)."""

    @field_validator("reward_pattern")
    @classmethod
    def _can_be_compiled(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits_the_functions(self) -> RolloutSettings:
        weights, names = self.reward_weights, self.reward_funcs
        if weights is not None and len(weights) != len(names):
            raise ValueError(
                f"reward_weights has {len(weights)} numbers for {len(names)} reward_funcs"
            )
        if len(set(names)) < len(names):
            raise ValueError("reward_funcs names a function twice: raise its weight instead")
        if ("format" in names) != (self.reward_pattern is not None):
            raise ValueError(
                "the reward format and reward_pattern go together: name both or neither"
            )
        return self
