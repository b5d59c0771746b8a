"""Own steps: functions of a user's file that judge rows, or work on them.

In: rows. Out: what the function leaves of them, once it is checked. The file is named by the run,
and `steps` names its functions as it does built-in steps; each is of one of two kinds.

A filter's first parameter is called `row`. It is given one row as a dict of its columns
(`contracts/corpus_step.py` lists them), and returns None or True to keep it, False or a text to
drop it. The reason of the drop is the function's name, its detail the text.

    def no_poems(row, max_lines: int = 8):
        lines = row["messages"][-1]["content"].splitlines()
        if len(lines) > max_lines:
            return f"{len(lines)} lines"

A step's first parameter is called `columns`. It is given a batch of rows as columns, and returns
a `StepResult`. It may change texts and add columns; it never changes an id, and each row that it
doesn't hand on is in `drops`. What it returns for a row must not depend on the other rows.

    from luthier.contracts.corpus_step import StepResult

    def short_names(columns):
        columns["source"] = [name.partition("-")[0] for name in columns["source"]]
        return StepResult(columns)

Further parameters have defaults and are the function's settings, checked against their annotation,
or else the type of the default: `step_settings: {no_poems: {max_lines: 4}}`. Both kinds are given
copies, which they may change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.core.errors import DataError
from luthier.core.own_code import place_of
from luthier.corpus.steps.own_file import (
    Function,
    OwnFile,
    find_function,
    first_parameter,
    read_own_file,
    read_settings,
)
from luthier.corpus.text.fields import kept, num_rows

_SHOWN_IDS = 3
"""Of many rows that are wrong in the same way, a message names these."""


@dataclass(frozen=True, slots=True)
class OwnStep:
    """A function of the user's as a step; each process reads the file for itself.

    Attributes:
        path: The file.
        function: The function's name, which is the step's too.
        settings: Values of its parameters after the first.
        sha256: Content of the file that the step was planned with; None takes any.
    """

    path: Path
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sha256: str | None = None

    @classmethod
    def of(cls, file: OwnFile, function: str, given: Mapping[str, Any]) -> OwnStep:
        """Build the step, and check its settings.

        Args:
            file: The user's file.
            function: Which of its functions.
            given: Settings as plain values.

        Raises:
            SettingsError: The function is not there, or does not take these settings.
        """
        return cls(file.path, function, read_settings(file, function, given), file.sha256)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function

    def __call__(self, columns: Columns) -> StepResult:
        """Let the function judge or work on a batch of rows.

        Args:
            columns: Rows. The function sees a copy of them.

        Raises:
            DataError: The function raised an error, returned what it must not, or its file is not
                the one that the step was planned with.
            SettingsError: The file can't be read any more.
        """
        file = read_own_file(self.path)
        if self.sha256 not in (None, file.sha256):
            raise DataError(
                f"the file has changed since the step {self.name} was planned",
                where=str(file.path),
                mend="Start again: what earlier steps have done is found again.",
            )
        function = find_function(file, self.function)
        # The rows as they came are what an account of drops holds, and what a result is checked by.
        given = deepcopy(columns)
        do = self._filter if first_parameter(function) == "row" else self._work
        return do(function, file.path, columns, given)

    def _filter(
        self, function: Function, path: Path, columns: Columns, given: Columns
    ) -> StepResult:
        rows: list[int] = []
        drops: list[Drop] = []
        for row in range(num_rows(columns)):
            cells = {name: values[row] for name, values in given.items()}
            try:
                verdict = function(cells, **self.settings)
            except Exception as error:  # the user's code may raise any
                raise self._failed(
                    place_of(function, path, error), _row(columns, row), error
                ) from error
            if isinstance(verdict, np.bool_):
                verdict = bool(verdict)
            if verdict is None or verdict is True:
                rows.append(row)
            elif verdict is False or isinstance(verdict, str):
                detail = verdict or f"{self.name} returned {verdict!r}"
                drops.append(Drop(columns["id"][row], self.name, detail))
            else:
                raise DataError(
                    f"the filter {self.name} returned {verdict!r} for {_row(columns, row)}",
                    where=place_of(function, path),
                    mend="Return None or True to keep a row, False or a text to drop it.",
                )
        return StepResult(kept(columns, rows), drops)

    def _work(self, function: Function, path: Path, columns: Columns, given: Columns) -> StepResult:
        if not num_rows(columns):
            return StepResult(columns)
        try:
            result = function(given, **self.settings)
        except Exception as error:  # the user's code may raise any
            rows = f"a batch of {num_rows(columns)} rows from {_row(columns, 0)}"
            raise self._failed(place_of(function, path, error), rows, error) from error
        if problem := _shape_problem(columns, result) or _row_problem(columns, result):
            raise DataError(
                f"the step {self.name} {problem}",
                where=place_of(function, path),
                mend="Return a StepResult with each row of the batch, by its id, in its columns "
                "or in its drops.",
            )
        return cast(StepResult, result)

    def _failed(self, where: str, rows: str, error: Exception) -> DataError:
        return DataError(
            f"the step {self.name} failed on {rows}: {type(error).__name__}: {error}",
            where=where,
            mend=f"Mend the function, or take {self.name} out of steps.",
        )


def _row(columns: Columns, row: int) -> str:
    origin = columns["origin"][row] if "origin" in columns else "of unknown origin"
    return f"the row {columns['id'][row]} ({origin})"


def _shape_problem(before: Columns, result: object) -> str | None:
    """Return what is wrong with a result before one looks at its rows."""
    if not isinstance(result, StepResult):
        return f"returned {type(result).__name__} and not a StepResult"
    after, drops = cast(object, result.columns), cast(list[object], result.drops)
    if not isinstance(after, dict) or not all(isinstance(drop, Drop) for drop in drops):
        return "returned a StepResult whose columns are no dict, or whose drops are no Drop"
    if lost := [name for name in before if name not in result.columns]:
        return f"lost the column {lost[0]}"
    columns = cast(dict[str, object], after)
    if odd := [name for name, values in columns.items() if not isinstance(values, list)]:
        return f"returned the column {odd[0]} as {type(columns[odd[0]]).__name__} and not a list"
    lengths = {name: len(values) for name, values in result.columns.items()}
    if odd := [name for name, length in lengths.items() if length != lengths["id"]]:
        return (
            f"returned columns of different lengths: id has {lengths['id']}, "
            f"{odd[0]} {lengths[odd[0]]}"
        )
    return None


def _row_problem(before: Columns, result: StepResult) -> str | None:
    """Return what is wrong with the rows of a result: each is kept or dropped, once, in order."""
    known, left = before["id"], result.columns["id"]
    before_ids, after_ids = set(known), set(left)
    times = Counter([*left, *(drop.id for drop in result.drops)])
    if invented := [name for name in times if name not in before_ids]:
        return f"returned rows that it was not given, or changed ids: {_some(invented)}"
    if twice := [name for name, count in times.items() if count > 1]:
        return f"returned rows twice, or kept and dropped: {_some(twice)}"
    if lost := [name for name in known if name not in times]:
        return f"lost rows without a Drop: {_some(lost)}"
    if left != [name for name in known if name in after_ids]:
        return "changed the order of the rows"
    return None


def _some(ids: list[str]) -> str:
    more = len(ids) - _SHOWN_IDS
    return ", ".join(map(str, ids[:_SHOWN_IDS])) + (f" and {more} more" if more > 0 else "")
