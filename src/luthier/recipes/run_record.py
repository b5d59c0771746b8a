"""What a run has left in its folder, read without torch: settings, manifest, metrics, events.

In: the folder of a run that is at work, finished, stopped or broken off, of this version of
luthier or an older one. Out: one `RunRecord`. Nothing in the folder is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from luthier.core.errors import RunError
from luthier.core.lock import is_locked
from luthier.engine.metrics_file import read_metrics

RUN_YAML = "run.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
SAMPLES = "samples.jsonl"

State = Literal["running", "finished", "stopped", "broken off"]

Record = Mapping[str, Any]

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
    if not (folder / RUN_YAML).is_file():
        found = "this folder holds no run" if folder.is_dir() else "there is no such folder"
        raise RunError(
            f"{found}: {RUN_YAML} is missing" if folder.is_dir() else found,
            where=str(folder),
            mend="Name the output_dir of a run; `luthier runs FOLDER` lists those below a folder.",
        )
    manifest = _read_manifest(folder / MANIFEST)
    metrics = read_metrics(folder / METRICS)

    def of_kind(kind: str) -> tuple[Record, ...]:
        return tuple(record for record in metrics if record.get("kind") == kind)

    return RunRecord(
        folder=folder,
        settings=manifest.get("settings") or _read_settings(folder / RUN_YAML),
        manifest=manifest,
        train=of_kind("train"),
        evaluations=of_kind("eval"),
        saves=of_kind("save"),
        samplings=of_kind("sample"),
        events=tuple(_read_lines(folder / EVENTS)),
        samples=tuple(_read_lines(folder / SAMPLES)),
        state=state_of(folder, manifest),
    )


def state_of(folder: Path, manifest: Record) -> State:
    """Return how a run stands: by who holds the lock of its folder, and by its manifest.

    Args:
        folder: The run's.
        manifest: What stands in its manifest.json; empty where there is none.
    """
    if is_locked(folder):
        return "running"
    outcome = manifest.get("outcome")
    if outcome is None:
        return "broken off"
    return "finished" if outcome.get("finished") else "stopped"


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders at and below a folder, by name. Links are followed, but not twice.

    Raises:
        RunError: There is no such folder.
    """
    if not folder.is_dir():
        raise RunError(
            "there is no such folder",
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


def _read_lines(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON-lines file that may still be written to; none if it is absent."""
    if not path.exists():
        return
    *whole, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(whole, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise RunError(
                "this line is no record",
                where=f"{path}:{number}",
                mend="Remove the line; nothing but what is shown depends on it.",
            )
        yield record
