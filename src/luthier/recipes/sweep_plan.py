"""A sweep's settings file, read and checked: every end of every range makes a run's settings.

In: a settings file with a `sweep` section, and flags. Out: a `SweepPlan`, from which the settings
of any trial follow. Imports no torch and no optuna: a typo is answered at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from luthier.core.errors import SettingsError, did_you_mean
from luthier.corpus.sources import has_validation
from luthier.recipes.config_file import Entry, read_config_file
from luthier.recipes.config_flags import CommandLine
from luthier.recipes.config_foreign import unknown_name
from luthier.recipes.config_layout import leaves, sections
from luthier.recipes.config_resolve import resolve
from luthier.recipes.run_config import RunConfig
from luthier.recipes.sweep_settings import Choice, Range, SweepSettings

SECTION = "sweep"
NUM_TRIALS = "num_trials"

ACTIONS = ("resume_from_checkpoint", "overwrite_output_dir")
"""Settings that say what becomes of the sweep that is in output_dir, not of a trial."""

_NEVER_SWEPT = (*ACTIONS, "output_dir", "allow_change")


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A sweep that can begin.

    Attributes:
        settings: The `sweep` section.
        config: A run's settings with the first value of each range; its output_dir is the sweep's.
        whole: Names of swept settings that take whole numbers only.
        goes_on: Whether to go on with the sweep in output_dir.
        overwrites: Whether to remove the sweep in output_dir first.
    """

    settings: SweepSettings
    config: RunConfig
    whole: frozenset[str]
    goes_on: bool
    overwrites: bool
    _file: tuple[Entry, ...]
    _flags: tuple[Entry, ...]
    _where: str

    def trial_config(self, params: Mapping[str, Choice], output_dir: str) -> RunConfig:
        """Return the settings of one trial.

        Args:
            params: A value for each swept setting.
            output_dir: The trial's folder.

        Raises:
            SettingsError: The values don't go together.
        """
        place = Entry("output_dir", output_dir, "the trial's folder")
        return _resolve(self._file, [*self._flags, place], params, self._where)


def read_sweep(command: CommandLine) -> SweepPlan:
    """Read and check a sweep.

    Args:
        command: The command line; `num_trials` among its options goes before the file's.

    Raises:
        SettingsError: A name, a value or an end of a range can't be used, or what is to be
            compared is not measured.
    """
    if command.config is None:
        raise SettingsError(
            "no settings file is given",
            where="command line",
            mend="Write luthier sweep CONFIG; the file has a `sweep` section (docs/sweeps.md).",
        )
    entries = read_config_file(command.config, frozenset({*sections(), SECTION}))
    own = [entry for entry in entries if entry.section == SECTION]
    file = tuple(entry for entry in entries if entry.section != SECTION and entry.name != SECTION)
    if not own:
        raise SettingsError(
            "there is no `sweep` section",
            where=str(command.config),
            mend="Add one with `ranges:` below it; docs/sweeps.md has an example.",
        )
    settings = _read_section(own, command.options.get(NUM_TRIALS))
    where = next(entry.where for entry in own if entry.name == "ranges")
    _check_names(settings, where, command.entries)
    flags = tuple(entry for entry in command.entries if entry.name not in ACTIONS)
    file = tuple(entry for entry in file if entry.name not in ACTIONS)
    first = {name: values[0] for name, values in _ends(settings)}
    config = _resolve(file, flags, first, where)
    for name, values in _ends(settings):
        for value in values:
            found = _value_of(_resolve(file, flags, first | {name: value}, where), name)
            _refuse_unordered(settings, name, found, where)
    whole = frozenset(n for n in settings.ranges if isinstance(_value_of(config, n), int))
    _refuse_unmeasured(settings, config, own)
    goes_on, overwrites = _read_actions([*entries, *command.entries])
    return SweepPlan(settings, config, whole, goes_on, overwrites, file, flags, where)


def _read_actions(entries: list[Entry]) -> tuple[bool, bool]:
    given = {entry.name: entry for entry in entries if entry.name in ACTIONS}
    for name, entry in given.items():
        if entry.value not in (True, False, None, "latest"):
            raise SettingsError(
                f"{name} is {entry.value!r}: a sweep goes on in its own output_dir",
                where=entry.where,
                mend=f"Write the bare flag: --{name}.",
            )
    resume, overwrite = (bool(given[n].value) if n in given else False for n in ACTIONS)
    return resume, overwrite and not resume


def _read_section(entries: list[Entry], num_trials: str | bool | None) -> SweepSettings:
    given = {entry.name: entry for entry in entries}
    for name, entry in given.items():
        if name not in SweepSettings.model_fields:
            raise SettingsError(
                f"no setting of a sweep is named {name}",
                where=entry.where,
                mend=did_you_mean(name, SweepSettings.model_fields),
            )
    if "ranges" not in given:
        raise SettingsError(
            "the sweep has no ranges",
            where=entries[0].where,
            mend="Write for example `ranges: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}`.",
        )
    values = {name: entry.value for name, entry in given.items()}
    if num_trials is not None:
        given[NUM_TRIALS] = Entry(NUM_TRIALS, num_trials, f"--{NUM_TRIALS}")
        values[NUM_TRIALS] = None if num_trials is True else num_trials
    try:
        return SweepSettings(**values)
    except ValidationError as error:
        raise _explain(error, given) from None


def _explain(error: ValidationError, given: Mapping[str, Entry]) -> SettingsError:
    detail = error.errors()[0]
    place = [str(part) for part in detail["loc"]]
    told = detail["msg"].removeprefix("Value error, ")
    # A check over several settings names the one that it is about first.
    name = place[0] if place else next((n for n in given if told.startswith(n)), "ranges")
    told = told[:1].lower() + told[1:]
    if len(place) > 1 and isinstance(given[name].value[place[1]], dict):
        end = next((part for part in place[2:] if part in Range.model_fields), None)
        problem = f"the range of {place[1]}{f', {end}' if end else ''}: {told}"
    elif len(place) > 1:
        problem = f"the range of {place[1]} is neither a list of values nor low and high"
    elif name == "ranges" or not place:
        problem = told
    else:
        problem = f"{name} is {given[name].value!r}: {told}"
    field = SweepSettings.model_fields[name]
    return SettingsError(problem, where=given[name].where, mend=f"{name}: {field.description}")


def _check_names(settings: SweepSettings, where: str, flags: tuple[Entry, ...]) -> None:
    given = {entry.name for entry in flags}
    for name in settings.ranges:
        if name not in leaves():
            raise unknown_name(name, where, leaves())
        if name in _NEVER_SWEPT:
            raise SettingsError(
                f"{name} can't vary in a sweep: each trial has a folder of its own",
                where=where,
                mend="Take it out of the ranges.",
            )
        if name in given:
            raise SettingsError(
                f"{name} is given, and the sweep varies it",
                where=f"--{name}",
                mend="Take one of the two out.",
            )


def _ends(settings: SweepSettings) -> Iterator[tuple[str, list[Choice]]]:
    for name, values in settings.ranges.items():
        yield name, [values.low, values.high] if isinstance(values, Range) else list(values)


def _resolve(
    file: tuple[Entry, ...],
    flags: list[Entry] | tuple[Entry, ...],
    params: Mapping[str, Choice],
    where: str,
) -> RunConfig:
    swept = [Entry(name, value, where) for name, value in params.items()]
    # A value that the file has for single runs gives way to the range.
    return resolve(file, [*flags, *swept]).config


def _value_of(config: RunConfig, name: str) -> Any:
    return getattr(getattr(config, leaves()[name].section), name)


def _refuse_unordered(settings: SweepSettings, name: str, value: Any, where: str) -> None:
    is_range = isinstance(settings.ranges[name], Range)
    if is_range and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise SettingsError(
            f"{name} takes no numbers between two ends",
            where=where,
            mend="Write its values as a list, in brackets.",
        )


def _refuse_unmeasured(settings: SweepSettings, config: RunConfig, own: list[Entry]) -> None:
    if not settings.metric.startswith("eval_"):
        return
    where = next((e.where for e in own if e.name == "metric"), own[0].where)
    if not has_validation(config.data):
        raise SettingsError(
            f"the metric {settings.metric} needs validation data",
            where=where,
            mend="Give val_file, or val_size to cut some from the training data.",
        )
