"""A list of runs: each as one row of named values, filtered and sorted by any of them.

In: run folders. Out: rows. A name is a fact of the run (`FACTS`), a setting or a metric, looked for
in this order: `learning_rate` is the setting, not the rate of the last step.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from luthier.core.errors import RunError, SettingsError, nearest
from luthier.recipes.run_record import RunRecord, find_runs, read_run

FACTS = (
    *("name", "state", "stage", "model", "step", "num_steps", "loss", "eval_loss"),
    *("best_eval_loss", "tokens_per_second", "seconds", "started"),
)

_CONDITION = re.compile(r"\s*([A-Za-z_][\w/.-]*)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = {"true": True, "false": False, "null": None, "none": None}


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One row of a list of runs.

    Attributes:
        folder: Of the run.
        name: Its path below the folder that was searched.
        facts: `FACTS` of it.
        settings: By leaf name.
        metrics: The newest value of each.
        problem: Why it can't be read; None if it was.
    """

    folder: Path
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    problem: RunError | None = None

    def get(self, name: str) -> Any:
        """Return a fact, setting or metric; None where the run has none of the name."""
        for values in (self.facts, self.settings, self.metrics):
            if name in values:
                return values[name]
        return None

    def names(self) -> set[str]:
        """Return every name that `get` knows."""
        return {*self.facts, *self.settings, *self.metrics}


@dataclass(frozen=True, slots=True)
class Condition:
    """What `--where` asks of a run."""

    name: str
    sign: str
    text: str

    def holds(self, run: ListedRun) -> bool:
        """Whether a run is wanted; one that does not know the name is not.

        Raises:
            SettingsError: The run's value is a number, and is compared with a word.
        """
        if self.name not in run.names():
            return False
        value = _comparable(run.get(self.name))
        wanted = self.text if isinstance(value, str) else _read_value(self.text)
        if type(value) is type(wanted) or self.sign in ("=", "==", "!="):
            return _OPERATORS[self.sign](value, wanted)
        if isinstance(value, float) and isinstance(wanted, str):
            raise SettingsError(
                f"{self.name} is a number, and {self.text!r} is none",
                where="--where",
                mend=f"Write for example --where '{self.name}{self.sign}{value:g}'.",
            )
        return False


def read_condition(text: str) -> Condition:
    """Read one `--where`: `learning_rate>1e-4`, `stage=dpo`, `max_steps!=null`.

    Raises:
        SettingsError: It is no comparison.
    """
    found = _CONDITION.fullmatch(text)
    if found is None or not found[3]:
        raise SettingsError(
            f"{text!r} is no comparison of a name with a value",
            where="--where",
            mend="Write NAME, one of = != < <= > >=, and a value, in quotes: "
            "--where 'learning_rate>1e-4'.",
        )
    return Condition(*found.groups())


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs at and below a folder, the newest first; damaged ones are among them.

    Raises:
        RunError: There is no such folder.
    """
    rows = [_listed(run, _name_below(folder, run)) for run in find_runs(folder)]
    return sort_runs(rows, "-started")


def select_runs(runs: Iterable[ListedRun], conditions: Sequence[Condition]) -> list[ListedRun]:
    """Return the runs of which all conditions hold; a damaged run stays, for nobody knows."""
    return [
        run
        for run in runs
        if run.problem is not None or all(condition.holds(run) for condition in conditions)
    ]


def sort_runs(runs: Iterable[ListedRun], by: str) -> list[ListedRun]:
    """Return runs by a fact, setting or metric; those without it come last.

    Args:
        runs: What is sorted.
        by: Its name; `-` before it turns the order around.
    """
    name = by.removeprefix("-")
    known = [run for run in runs if run.get(name) is not None]
    unknown = [run for run in runs if run.get(name) is None]
    # Numbers come before words where a setting can be either.
    known.sort(key=lambda run: _sort_key(run.get(name)), reverse=by.startswith("-"))
    return known + unknown


def check_names(names: Iterable[str], runs: Sequence[ListedRun]) -> None:
    """Refuse a name that no run and no version of luthier knows.

    Raises:
        SettingsError: With the nearest name.
    """
    known = set(FACTS).union(*(run.names() for run in runs))
    for name in names:
        if name in known:
            continue
        # Slow to load, and seldom needed: a setting that none of these runs has.
        from luthier.recipes.config_layout import leaves

        if name in leaves():
            continue
        close = nearest(name, known | leaves().keys())
        raise SettingsError(
            f"{name} is no setting and no metric of these runs",
            where="luthier runs",
            mend=f"Did you mean {close}?" if close else "Names: `luthier config`, metrics.jsonl.",
        )


def _listed(folder: Path, name: str) -> ListedRun:
    try:
        run = read_run(folder)
    except RunError as problem:
        return ListedRun(folder, name, problem=problem)
    return ListedRun(folder, name, _facts(run, name), run.flat_settings, run.last_metrics)


def _facts(run: RunRecord, name: str) -> dict[str, Any]:
    settings, metrics = run.flat_settings, run.last_metrics
    model = settings.get("model_name_or_path")
    return {
        "name": name,
        "state": run.state,
        "stage": settings.get("stage"),
        "model": PurePath(model).name if model else None,
        "step": run.step,
        "num_steps": run.num_steps,
        "loss": metrics.get("loss"),
        "eval_loss": metrics.get("eval_loss"),
        "best_eval_loss": run.best_eval_loss,
        "tokens_per_second": metrics.get("tokens_per_second"),
        "seconds": run.seconds,
        "started": run.started,
    }


def _name_below(folder: Path, run: Path) -> str:
    below = run.relative_to(folder).as_posix()
    return run.resolve().name if below == "." else below


def _comparable(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, list):
        return ",".join(map(str, value))
    return float(value) if isinstance(value, int | float) else str(value)


def _read_value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text


def _sort_key(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0.0, "" if is_number else str(value)
