"""`luthier sweep`: try settings, trial by trial, each a run folder of its own below output_dir.

output_dir/
  sweep.json                 the trials; the sweep goes on from it
  sweep.html                 the same to look at
  best.yaml                  the settings of the best trial
  trial-0000/, .yaml, .log   a run, its settings file, and what its process printed
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from luthier.core.clock import now
from luthier.core.errors import RunError, SettingsError, did_you_mean
from luthier.core.exit_codes import STOPPED
from luthier.core.files import write_text
from luthier.core.lock import LOCK, locked_folder
from luthier.recipes.run_folder import (
    LR_FIND,
    output_errors,
    refuse_own_model,
    write_settings,
)
from luthier.recipes.run_record import SWEEP_JSON, RunRecord
from luthier.recipes.sweep_draws import OpenTrial, importance, load_optuna, open_trial
from luthier.recipes.sweep_plan import SweepPlan
from luthier.recipes.sweep_record import (
    SweepRecord,
    SweepTrial,
    read_record,
    write_record,
)
from luthier.recipes.sweep_trial import TRAIN, Stop, TrialEnd, log_file, run_trial
from luthier.report.sweep_page import sweep_page

PAGE = "sweep.html"
BEST_YAML = "best.yaml"
BEST = "best"
"""Folder that best.yaml names for a run of its settings."""

FAILURES_IN_A_ROW = 3
"""After so many, the cause lies not in the values that were drawn."""


class SweepScreen(Protocol):
    """Shows a sweep."""

    def say(self, line: str) -> None:
        """Something worth a line happened."""
        ...

    def begins(self, trial: SweepTrial, num_trials: int) -> None:
        """A trial begins, or goes on."""
        ...

    def progress(self, run: RunRecord) -> None:
        """The trial as it stands."""
        ...

    def ended(self, trial: SweepTrial, best: SweepTrial | None) -> None:
        """A trial has ended; `best` is the best so far."""
        ...


def run_sweep(
    plan: SweepPlan,
    command: Sequence[str],
    screen: SweepScreen,
    stop: Stop,
    *,
    wait: Callable[[], None],
    train: Sequence[str] = TRAIN,
) -> SweepRecord:
    """Run the trials of a sweep, or those that are left of it.

    Args:
        plan: What is tried.
        command: The command line, for the record.
        screen: Shows what happens.
        stop: Asked while a trial is under way; its trial is checkpointed, and the sweep ends.
        wait: Called between two looks at a trial.
        train: The command that trains one settings file.

    Returns:
        The sweep as it stands: trials are left if it was stopped.

    Raises:
        MissingExtraError: optuna is not installed.
        RunError: output_dir holds something else, or trial after trial fails.
        SettingsError: The runs do not measure what is to be compared.
    """
    load_optuna()
    folder = Path(plan.config.run.output_dir).expanduser()
    refuse_used(folder, plan)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder, screen.say):
        if plan.overwrites:
            clear_sweep(folder)
        record = SweepRecord(plan, (), tuple(command), now())
        if plan.goes_on:
            record = read_record(folder, plan)
        _write_report(folder, record)
        num_failures = 0
        while len(record.done) < plan.settings.num_trials and not stop.requested:
            trial = next((t for t in record.trials if t.state == "running"), None)
            opened = open_trial(plan, record.done, None if trial is None else trial.params)
            trial = trial or SweepTrial(len(record.trials), opened.params)
            record = record.with_trial(trial)
            write_record(folder, record, {})
            screen.begins(trial, plan.settings.num_trials)
            ended = _run_one(plan, trial, opened, folder, screen, stop, wait, train)
            if ended is None:
                break
            record = record.with_trial(ended)
            _write_report(folder, record)
            screen.ended(ended, record.best)
            num_failures = num_failures + 1 if ended.state == "failed" else 0
            if num_failures == FAILURES_IN_A_ROW:
                raise RunError(
                    f"{FAILURES_IN_A_ROW} trials in a row failed, the last one by: {ended.cause}",
                    where=str(log_file(folder / ended.name)),
                    mend="Mend the cause, and go on with --resume_from_checkpoint.",
                )
    return record


def refuse_used(folder: Path, plan: SweepPlan) -> None:
    """Refuse a folder with something in it that nobody said what to do with.

    Raises:
        RunError: It holds a sweep, or anything else.
    """
    if plan.goes_on:
        return
    holds_sweep = (folder / SWEEP_JSON).is_file()
    if holds_sweep and plan.overwrites:
        refuse_own_model(folder, plan.config)
        return
    if holds_sweep:
        raise RunError(
            "output_dir holds a sweep already",
            where=str(folder),
            mend="Go on with it by --resume_from_checkpoint, remove it by --overwrite_output_dir, "
            "or choose another --output_dir.",
        )
    if folder.is_dir() and any(item.name not in (LOCK, LR_FIND) for item in folder.iterdir()):
        raise RunError(
            "output_dir is not empty, and what is in it is no sweep",
            where=str(folder),
            mend="Choose another --output_dir.",
        )


def clear_sweep(folder: Path) -> None:
    """Remove a sweep and its trials; whatever else lies in the folder stays."""
    for path in folder.glob("trial-[0-9]*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in (PAGE, BEST_YAML, SWEEP_JSON):  # What marks the folder goes last.
        (folder / name).unlink(missing_ok=True)


def final_value(run: RunRecord, metric: str) -> float | None:
    """Return a metric as it stands at a run's end; None where it is not finite.

    Raises:
        SettingsError: The run does not measure it.
    """
    known = run.last_metrics
    if metric in known:
        return known[metric]
    raise SettingsError(
        f"the runs of this sweep measure no {metric}",
        where=str(run.folder),
        mend=did_you_mean(metric, known),
    )


def _run_one(
    plan: SweepPlan,
    trial: SweepTrial,
    opened: OpenTrial,
    folder: Path,
    screen: SweepScreen,
    stop: Stop,
    wait: Callable[[], None],
    train: Sequence[str],
) -> SweepTrial | None:
    """Return a trial with its end; None where the sweep was stopped before it."""
    place = folder / trial.name
    settings_file = place.with_name(f"{trial.name}.yaml")
    try:
        config = plan.trial_config(trial.params, str(place))
    except SettingsError as error:
        return replace(trial, state="failed", cause=error.problem)
    title = f"The settings of trial {trial.number} of a sweep."
    write_settings(settings_file, config, title)
    watch = _Watch(plan.settings.metric, opened, screen)
    stop.has_work = True
    end = run_trial(settings_file, place, watch, stop, wait, train)
    return _settled(replace(trial, reported=tuple(opened.reported)), end, watch, stop)


class _Watch:
    """Hands the validations of a run to its trial, and says whether to stop it early."""

    def __init__(self, metric: str, opened: OpenTrial, screen: SweepScreen) -> None:
        self.metric = metric
        self.is_broken = False
        self._opened = opened
        self._screen = screen

    def __call__(self, run: RunRecord) -> bool:
        self._screen.progress(run)
        if not self.metric.startswith("eval_"):
            return False
        # The untrained model is the same in all trials.
        values = [r.get(self.metric) for r in run.evaluations if r["step"]]
        if run.evaluations:
            final_value(run, self.metric)
        is_behind = False
        for value in values[len(self._opened.reported) :]:
            if value is None:
                self.is_broken = True
                return True
            is_behind = self._opened.report(value)
        return is_behind


def _settled(trial: SweepTrial, end: TrialEnd, watch: _Watch, stop: Stop) -> SweepTrial | None:
    if end.run is not None:
        trial = replace(trial, step=end.run.step, seconds=end.run.seconds)
    if end.code == 0 and end.run is not None:
        value = final_value(end.run, watch.metric)
        if value is not None:
            return replace(trial, state="finished", value=value)
        watch.is_broken = True
    if watch.is_broken:
        return replace(trial, state="failed", cause=f"{watch.metric} was no finite number")
    if end.was_pruned:
        return replace(trial, state="pruned")
    if stop.requested or end.code == STOPPED:
        return None
    return replace(trial, state="failed", cause=end.cause)


def _write_report(folder: Path, record: SweepRecord) -> None:
    """Write what a sweep came to so far: for programs, for people, and for `luthier train`."""
    plan, best = record.plan, record.best
    written = write_record(folder, record, importance(plan, record.done))
    write_text(folder / PAGE, sweep_page(written))
    if best is not None:
        config = plan.trial_config(best.params, str(folder / BEST))
        value = f"{plan.settings.metric} {best.value:.6g}"
        title = f"The settings of {best.name}, the best of a sweep: {value}."
        write_settings(folder / BEST_YAML, config, title)
