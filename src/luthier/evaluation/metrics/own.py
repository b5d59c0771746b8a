"""A metric of the user's own: a function of a file, named as FILE.py:FUNCTION.

    def short(answers, references, rows):
        return [len(answer) < 100 for answer in answers]

It is given all answers at once, their references, and the rows as they stand in the data. It
returns one number a row, from which the interval follows, or one number for all, which has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isfunction
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from luthier.core.errors import RunError, SettingsError, did_you_mean
from luthier.core.own_code import place_of, read_own_code, run_own_code
from luthier.evaluation.metrics.score import Score, mean_score

OwnFunction = Callable[[Sequence[str], Sequence[str], Sequence[Mapping[str, Any]]], Any]


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A user's function, and the file that it stands in."""

    name: str
    function: OwnFunction
    path: Path

    def __call__(
        self,
        answers: Sequence[str],
        references: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
    ) -> Score | float:
        """Return what the function finds: a score of rows, or a single number.

        Raises:
            RunError: It raised an error, or returned something else; the message names file and
                line.
        """
        try:
            found: Any = self.function(answers, references, rows)
        except Exception as error:  # the user's code may raise any
            raise RunError(
                f"the metric {self.name} failed: {type(error).__name__}: {error}",
                where=place_of(self.function, self.path, error),
                mend="Mend the function. The answers are kept, and are not generated again.",
            ) from error
        if _is_number(found):
            return float(found)
        values = _listed(found)
        if values is None:
            raise self._wrong(f"returned {_short(found)}")
        if len(values) != len(answers):
            raise self._wrong(f"returned {len(values)} numbers for {len(answers)} answers")
        for number, value in enumerate(values):
            if not _is_number(value):
                raise self._wrong(f"returned {_short(value)} for row {number + 1}")
        numbers = [float(value) for value in values]
        is_share = set(numbers) <= {0.0, 1.0}
        return mean_score(self.name, numbers, f"{self.path.name}:{self.name}", is_share=is_share)

    def _wrong(self, what: str) -> RunError:
        return RunError(
            f"the metric {self.name} {what}",
            where=place_of(self.function, self.path),
            mend="Return a finite number, or a list with one for each answer.",
        )


def own_metric(named: str, taken: Iterable[str]) -> OwnMetric:
    """Return the metric that FILE.py:FUNCTION names.

    Args:
        named: As the user wrote it.
        taken: Names of other metrics.

    Raises:
        SettingsError: It names no file and function, the file can't be run or has no such function,
            or another metric has its name.
    """
    file, colon, name = named.rpartition(":")
    if not colon or not file or not name:
        raise SettingsError(
            f"{named} names no function",
            where="--metric",
            mend="Name it as FILE.py:FUNCTION, for example --metric my_metrics.py:politeness",
        )
    path = Path(file).expanduser().resolve()
    module = run_own_code(path, read_own_code(path, "the file of the metric"))
    function = getattr(module, name, None)
    if not isfunction(function):
        raise SettingsError(
            f"the file has no function {name}",
            where=str(path),
            mend=did_you_mean(name, [n for n, v in vars(module).items() if isfunction(v)]),
        )
    if name in taken:
        raise SettingsError(
            f"there is a metric named {name} already",
            where="--metric",
            mend="Give the function another name.",
        )
    return OwnMetric(name, function, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.bool_) and math.isfinite(value)


def _listed(found: Any) -> list[Any] | None:
    """Return the values of a list, a tuple or an array; None of what has no order."""
    if isinstance(found, np.ndarray):
        found = found.tolist()
    return list(found) if isinstance(found, Sequence) and not isinstance(found, str) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
