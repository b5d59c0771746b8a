"""What an answer is worth: reward functions by name, and those of a file of the user's.

A reward function is a pure function of texts, `(prompt, answer, row) -> float`
(`contracts/question.py`); a higher number is better. Those of luthier:

    math_answer   1 where the last number of the answer is that of the reference, else 0
    format        1 where the whole answer matches `reward_pattern`, else 0
    length        0 up to `reward_max_chars`, then falling to -1

Own ones are named as FILE.py:FUNCTION. The file is run because the user named it, and nothing else
of it is called. What such a function raises ends the run, by file, line and row: a reward that is
missing now and then would teach something else than was meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import isfunction
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from luthier.contracts.question import Question, Reward
from luthier.core.errors import RunError, SettingsError, did_you_mean
from luthier.core.own_code import place_of, read_own_code, run_own_code
from luthier.evaluation.math_answer import final_answer, same_answer
from luthier.rollouts.settings import RolloutSettings


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A reward function with its name.

    Attributes:
        name: What the log calls it: its own name, or that of the user's function.
        weight: Its factor in an answer's whole reward.
        function: The function.
        path: The file that it stands in, if it is the user's.
    """

    name: str
    weight: float
    function: Reward
    path: Path | None = None

    def __call__(self, question: Question, answer: str, origin: str) -> float:
        """Return what an answer is worth.

        Args:
            question: What it answers.
            answer: Its text.
            origin: File and line of the question, for errors.

        Raises:
            RunError: The function raised an error, or returned no finite number.
        """
        try:
            value: Any = self.function(question.prompt, answer, question.row)
        except Exception as error:  # the user's code may raise any
            raise RunError(
                f"the reward function {self.name} failed on the row {origin}: "
                f"{type(error).__name__}: {error}",
                where=self._place(error) or origin,
                mend=f"Mend the function or the row, or take {self.name} out of reward_funcs.",
            ) from error
        if isinstance(value, Real) and math.isfinite(value):
            return float(value)
        raise RunError(
            f"the reward function {self.name} returned {value!r} for the row {origin}",
            where=self._place() or origin,
            mend="Return a finite number for every answer.",
        )

    def _place(self, error: Exception | None = None) -> str | None:
        return None if self.path is None else place_of(self.function, self.path, error)


def reward_functions(settings: RolloutSettings) -> list[RewardFunction]:
    """Return the reward functions of a run, in the order of `reward_funcs`.

    Raises:
        SettingsError: None is named, there is none of a name, or the user's file can't be run.
    """
    if not settings.reward_funcs:
        raise SettingsError(
            "there is nothing to say which answers are better",
            where="reward_funcs",
            mend=f"Name reward functions: {', '.join(REWARDS)}, or FILE.py:FUNCTION.",
        )
    weights = settings.reward_weights or [1.0] * len(settings.reward_funcs)
    return [
        _find(name, weight, settings)
        for name, weight in zip(settings.reward_funcs, weights, strict=True)
    ]


def _find(name: str, weight: float, settings: RolloutSettings) -> RewardFunction:
    if name in REWARDS:
        return RewardFunction(name, weight, REWARDS[name](settings))
    file, colon, function = name.rpartition(":")
    if not colon:
        raise SettingsError(
            f"there is no reward function {name}",
            where="reward_funcs",
            mend=f"{did_you_mean(name, REWARDS)} One of your own is named FILE.py:FUNCTION.",
        )
    path = Path(file).expanduser().resolve()
    module = run_own_code(path, read_own_code(path, "the file of reward functions"))
    found = getattr(module, function, None)
    if not isfunction(found):
        raise SettingsError(
            f"the file has no function {function}",
            where=str(path),
            mend=did_you_mean(function, [n for n, v in vars(module).items() if isfunction(v)]),
        )
    return RewardFunction(function, weight, found, path)


def judge_answers(
    rewards: Sequence[RewardFunction], rows: Sequence[Any], texts: Sequence[Sequence[str]]
) -> torch.Tensor:
    """Return what each function gives each answer, (G, N, F) of float64.

    Args:
        rewards: F functions.
        rows: G prepared prompts.
        texts: The N answers to each.

    Raises:
        RunError: As `RewardFunction`.
    """
    questions = [Question.from_json(row["question"]) for row in rows]
    values = [
        [[judge(question, text, row["origin"]) for judge in rewards] for text in group]
        for row, question, group in zip(rows, questions, texts, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


def math_answer(prompt: str, answer: str, row: Mapping[str, Any]) -> float:
    """Return 1 where an answer comes to what the reference comes to, else 0.

    Raises:
        ValueError: The row holds no reference.
    """
    del prompt
    if row["reference"] is None:
        raise ValueError("the row holds no answer to compare with")
    return float(same_answer(final_answer(answer), final_answer(row["reference"])))


def matches_format(
    prompt: str, answer: str, row: Mapping[str, Any], *, pattern: re.Pattern[str]
) -> float:
    """Return 1 where the whole answer matches a pattern, white space around it aside, else 0."""
    del prompt, row
    return float(pattern.fullmatch(answer.strip()) is not None)


def length_penalty(prompt: str, answer: str, row: Mapping[str, Any], *, max_chars: int) -> float:
    """Return 0 for an answer of up to so many characters, then less and less, down to -1.

    Source:
        The soft penalty of DAPO (arXiv 2503.14476, equation 13), in characters.
    """
    del prompt, row
    return -min(1.0, max(0, len(answer) - max_chars) / max_chars)


def _format(settings: RolloutSettings) -> Reward:
    return partial(matches_format, pattern=re.compile(settings.reward_pattern or "", re.DOTALL))


REWARDS: Mapping[str, Callable[[RolloutSettings], Reward]] = {
    "math_answer": lambda _settings: math_answer,
    "format": _format,
    "length": lambda settings: partial(length_penalty, max_chars=settings.reward_max_chars),
}
"""Builds each reward function from the settings, by its name."""
