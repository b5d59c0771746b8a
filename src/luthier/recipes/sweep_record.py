"""sweep.json: every trial of a sweep, and all that going on with it needs.

The file is the sweep's only state: it is whole at any moment, and what is drawn next follows from
it alone. (A store of optuna's own would be a second truth beside the run folders, and one that a
kill in the middle of a line leaves unreadable.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from luthier import __version__
from luthier.core.clock import now
from luthier.core.errors import RunError
from luthier.core.files import write_json
from luthier.core.hashing import hash_json
from luthier.recipes.run_folder import settings_of
from luthier.recipes.run_record import SWEEP_JSON
from luthier.recipes.sweep_plan import SweepPlan
from luthier.recipes.sweep_settings import Choice

KIND = "luthier sweep"

TrialState = Literal["running", "finished", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class SweepTrial:
    """One trial.

    Attributes:
        number: From 0 on.
        params: The value of each swept setting.
        state: `running` until its end is known, also while the sweep itself is stopped. `pruned`:
            stopped early. `failed`: it diverged, ran out of memory or could not begin.
        value: The metric at its end; None where it did not get there.
        reported: The metric at each of its validations.
        step: Optimiser steps that are done.
        seconds: Time at work.
        cause: Why it failed.
    """

    number: int
    params: Mapping[str, Choice]
    state: TrialState = "running"
    value: float | None = None
    reported: tuple[float, ...] = ()
    step: int = 0
    seconds: float = 0.0
    cause: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"trial-{self.number:04d}"


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A sweep as it stands.

    Attributes:
        plan: What is tried.
        trials: By number.
        command: The command line, word by word.
        started: When it began, as ISO 8601.
    """

    plan: SweepPlan
    trials: tuple[SweepTrial, ...]
    command: tuple[str, ...]
    started: str

    def with_trial(self, trial: SweepTrial) -> SweepRecord:
        """Return the record with a trial in the place of the one of its number, or at the end."""
        trials = (*self.trials[: trial.number], trial, *self.trials[trial.number + 1 :])
        return replace(self, trials=trials)

    @property
    def done(self) -> tuple[SweepTrial, ...]:
        """The trials whose end is known."""
        return tuple(trial for trial in self.trials if trial.state != "running")

    @property
    def best(self) -> SweepTrial | None:
        """The finished trial with the best value, the first of equals; None before the first."""
        found = [(t.value, t) for t in self.trials if t.state == "finished" and t.value is not None]
        if not found:
            return None
        sign = 1 if self.plan.settings.direction == "minimize" else -1
        return min(found, key=lambda one: sign * one[0])[1]


def write_record(folder: Path, record: SweepRecord, importance: Mapping[str, float]) -> Any:
    """Write sweep.json.

    Args:
        folder: The sweep's.
        record: The sweep as it stands.
        importance: Share of each setting in what makes a trial good; empty while it is unknown.

    Returns:
        What was written.
    """
    settings = record.plan.settings.model_dump(mode="json")
    best = record.best
    written = {
        "kind": KIND,
        "luthier": __version__,
        "started": record.started,
        "written": now(),
        "command": list(record.command),
        "output_dir": record.plan.config.run.output_dir,
        **settings,
        **_fingerprint(record.plan),
        "trials": [_as_json(trial) for trial in record.trials],
        "best": None if best is None else best.number,
        "importance": dict(importance),
    }
    write_json(folder / SWEEP_JSON, written)
    return written


def read_record(folder: Path, plan: SweepPlan) -> SweepRecord:
    """Read a sweep to go on with.

    Args:
        folder: Its.
        plan: What is to be tried now; `num_trials` and the pruning may differ.

    Raises:
        RunError: There is none, it is damaged, or it tried something else.
    """
    path = folder / SWEEP_JSON
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        trials = tuple(_trial(one) for one in found["trials"])
        was = {name: found[name] for name in (*_DECIDING, "settings_sha256")}
        command, started = tuple(found["command"]), str(found["started"])
    except FileNotFoundError:
        raise RunError(
            "there is no sweep to go on with",
            where=str(path),
            mend="Take --resume_from_checkpoint out to start one.",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RunError(
            "the record of the sweep is damaged",
            where=str(path),
            mend="Start anew in another output_dir; the runs in this one stay readable.",
        ) from None
    now_is = plan.settings.model_dump(mode="json") | _fingerprint(plan)
    changed = [name for name in was if was[name] != now_is[name]]
    if changed:
        named = ["the other settings" if n == "settings_sha256" else n for n in changed]
        raise RunError(
            f"this sweep was begun with something else: {', '.join(named)}",
            where=str(path),
            mend="Go on with what it was begun with, or start anew in another output_dir.",
        )
    return SweepRecord(plan, trials, command, started)


_DECIDING = ("ranges", "metric", "direction", "sampler")


def _fingerprint(plan: SweepPlan) -> dict[str, str]:
    """Return what stays the same in all trials, as a hash; the folder may have been moved."""
    varies = {*plan.settings.ranges, "output_dir"}
    settings = {
        section: {name: value for name, value in values.items() if name not in varies}
        for section, values in settings_of(plan.config).items()
    }
    return {"settings_sha256": hash_json(settings)}


def _as_json(trial: SweepTrial) -> dict[str, Any]:
    return asdict(trial) | {"reported": list(trial.reported), "folder": trial.name}


def _trial(found: Mapping[str, Any]) -> SweepTrial:
    known: dict[str, Any] = {name: found[name] for name in SweepTrial.__slots__}
    known["reported"] = tuple(known["reported"])
    return SweepTrial(**known)
