"""What a run has left in its folder, read without torch: settings, manifest, metrics, events.

In: the folder of a run that is at work, finished, stopped or broken off, of this version of
luthier or an older one. Out: one `RunRecord`. Nothing in the folder is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from luthier.core.errors import RunError
from luthier.core.lock import is_locked
from luthier.recipes.growing_lines import GrowingLines, Record

RUN_YAML = "run.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
SAMPLES = "samples.jsonl"
SWEEP_JSON = "sweep.json"
"""Stands in the folder of a sweep, whose trials are runs below it."""

State = Literal["running", "finished", "stopped", "broken off"]

_NO_FOLDER = "there is no such folder"
_NO_RUNS_IN = frozenset({"checkpoints", "evaluations", "lr-find"})


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as its folder tells it.

    Attributes:
        folder: Where it is.
        settings: Sections of settings, as in run.yaml; an older run lacks those of today.
        manifest: What stands in manifest.json; empty where there is none.
        train: Records of metrics.jsonl: one a logged step.
        evaluations: One a validation.
        saves: One a checkpoint.
        samplings: One each time that prompts were answered.
        events: What was out of the ordinary (events.jsonl).
        samples: Answers to fixed prompts (samples.jsonl).
        state: `running`: a process is at work. `stopped`: by a signal, with a checkpoint.
            `broken off`: the process died, or ended with an error.
    """

    folder: Path
    settings: Mapping[str, Record]
    manifest: Record
    train: tuple[Record, ...]
    evaluations: tuple[Record, ...]
    saves: tuple[Record, ...]
    samplings: tuple[Record, ...]
    events: tuple[Record, ...]
    samples: tuple[Record, ...]
    state: State

    @property
    def flat_settings(self) -> dict[str, Any]:
        """The value of each setting, by the name that it has in every layout."""
        return {n: v for section in self.settings.values() for n, v in section.items()}

    @property
    def last_train(self) -> Record:
        """The newest record of training; empty before the first."""
        return self.train[-1] if self.train else {}

    @property
    def last_eval(self) -> Record:
        """The newest record of a validation; empty before the first."""
        return self.evaluations[-1] if self.evaluations else {}

    @property
    def last_metrics(self) -> dict[str, Any]:
        """The newest value of each metric, of training and validation."""
        head = ("kind", "step", "epoch", "elapsed_seconds")
        both = {**self.last_eval, **self.last_train}
        return {name: value for name, value in both.items() if name not in head}

    @property
    def best_eval_loss(self) -> float | None:
        """The lowest validation loss; None without one."""
        found = (record.get("eval_loss") for record in self.evaluations)
        return min((loss for loss in found if loss is not None), default=None)

    @property
    def step(self) -> int:
        """Optimiser steps that are done and logged."""
        done = self.outcome.get("steps") or 0
        return max(self.last_train.get("step", 0), self.last_eval.get("step", 0), done)

    @property
    def num_steps(self) -> int | None:
        """Optimiser steps of the whole run, as its epochs let expect; None before the first."""
        settings = self.flat_settings
        if self.outcome.get("finished"):
            return self.step
        if settings.get("max_steps"):
            return int(settings["max_steps"])
        last, epochs = self.last_train, settings.get("num_train_epochs")
        if not last.get("epoch") or not epochs:
            return None
        return max(last["step"], round(last["step"] / last["epoch"] * epochs))

    @property
    def outcome(self) -> Record:
        """What the manifest says of the run's end; empty before it."""
        return self.manifest.get("outcome") or {}

    @property
    def seconds(self) -> float:
        """Time at work: of the parts before stops, as far as they told it, and of the newest."""
        earlier = sum(
            (part.get("outcome") or {}).get("seconds", 0.0)
            for part in self.manifest.get("earlier", ())
        )
        logged = self.last_train.get("elapsed_seconds", 0.0)
        return float(earlier + self.outcome.get("seconds", logged))

    @property
    def seconds_per_step(self) -> float | None:
        """Mean time of a step since the newest start, validations and all; None before the first.

        Each start of a run counts its `elapsed_seconds` from 0.
        """
        records = [record for record in self.train if "elapsed_seconds" in record]
        if not records:
            return None
        clock = [record["elapsed_seconds"] for record in records]
        first = len(records) - 1
        while first and clock[first - 1] < clock[first]:
            first -= 1
        steps = records[-1]["step"] - records[first]["step"]
        if not steps:
            return records[-1].get("seconds_per_step")
        return (clock[-1] - clock[first]) / steps

    @property
    def started(self) -> str | None:
        """When the run began first, as ISO 8601 in UTC; None where no manifest says it."""
        parts = [*self.manifest.get("earlier", ()), self.manifest]
        return next((part["started"] for part in parts if "started" in part), None)


def read_run(folder: Path) -> RunRecord:
    """Read what is recorded of a run.

    A last line that a killed run left torn is not read; files that an older version did not write
    are taken for empty.

    Args:
        folder: The output_dir of a run.

    Raises:
        RunError: There is no run here, or a file of it is damaged.
    """
    return RunReader(folder).read()


class RunReader:
    """Reads a run's folder again and again; of the files that grow, only what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._metrics = GrowingLines(folder / METRICS)
        self._events = GrowingLines(folder / EVENTS)
        self._samples = GrowingLines(folder / SAMPLES)

    def read(self) -> RunRecord:
        """Return the run as it is now.

        Raises:
            RunError: As `read_run`.
        """
        folder = self._folder
        if not (folder / RUN_YAML).is_file():
            is_there = folder.is_dir()
            raise RunError(
                f"this folder holds no run: {RUN_YAML} is missing" if is_there else _NO_FOLDER,
                where=str(folder),
                mend="Name the output_dir of a run; `luthier runs FOLDER` lists those below it.",
            )
        # The lock first: a run that ends meanwhile has written everything before it lets go.
        is_running = is_locked(folder)
        manifest = _read_manifest(folder / MANIFEST)
        by_kind: dict[str, list[Record]] = {}
        for record in self._metrics.read():
            by_kind.setdefault(record.get("kind", ""), []).append(record)
        return RunRecord(
            folder=folder,
            settings=manifest.get("settings") or _read_settings(folder / RUN_YAML),
            manifest=manifest,
            train=tuple(by_kind.get("train", ())),
            evaluations=tuple(by_kind.get("eval", ())),
            saves=tuple(by_kind.get("save", ())),
            samplings=tuple(by_kind.get("sample", ())),
            events=tuple(self._events.read()),
            samples=tuple(self._samples.read()),
            state="running" if is_running else _state_at_rest(manifest),
        )


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders at and below a folder, by name. Links are followed, but not twice.

    Raises:
        RunError: There is no such folder.
    """
    if not folder.is_dir():
        raise RunError(
            _NO_FOLDER,
            where=str(folder),
            mend="Name a folder that has the output_dir of runs in it.",
        )
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        place = Path(parent).stat()
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        is_run = RUN_YAML in files
        skipped = _NO_RUNS_IN if is_run else ()
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in skipped)
        if is_run:
            found.append(Path(parent))
    return found


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(
            "the manifest is damaged",
            where=str(path),
            mend="Remove it: the settings and metrics of the run can be read without it.",
        )
    return found


def _read_settings(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise RunError(
            "these are no settings",
            where=str(path),
            mend="A run's run.yaml holds sections of settings; bring it back as it was.",
        )
    # Flat where a user has written it by hand.
    flat = {name: value for name, value in found.items() if not isinstance(value, dict)}
    sections = {name: value for name, value in found.items() if isinstance(value, dict)}
    return sections | ({"run": {**flat, **sections.get("run", {})}} if flat else {})


def _state_at_rest(manifest: Record) -> State:
    outcome = manifest.get("outcome")
    if outcome is None:
        return "broken off"
    return "finished" if outcome.get("finished") else "stopped"
