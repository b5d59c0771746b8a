"""Run a run again, as it was, and hold what comes of it against what came of it then.

Comes in: the folder of a run with its run.yaml and manifest. Goes out: what is another today, and
a run of its own beside it. A run that was stopped and went on is repeated in one piece: that is
the same run. Nothing in the earlier folder is changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.contracts.training import StopRequest
from luthier.core.errors import DataError, RunError
from luthier.core.hashing import hash_json, hash_text
from luthier.corpus.sources import resolve_train, resolve_val
from luthier.dataset.inputs import describe_inputs, describe_work
from luthier.models.load import check_model_path
from luthier.recipes.config_file import Entry, read_config_file
from luthier.recipes.config_layout import sections
from luthier.recipes.config_resolve import resolve
from luthier.recipes.corpus_plan import deciding_versions
from luthier.recipes.data import run_tokenizer
from luthier.recipes.determinism import use_threads
from luthier.recipes.manifest import describe_run
from luthier.recipes.run_comparison import Comparison, compare_runs
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_differences import NOT_READ, NOT_THERE, Today, compare_manifests
from luthier.recipes.run_folder import MANIFEST, RUN_YAML, settings_of
from luthier.recipes.screen import Screen
from luthier.recipes.stages import stage_of
from luthier.recipes.train import TrainResult, run_training

PLACES = ("train_file", "val_file", "dataset_dir", "model_name_or_path")
"""Settings that say where something lies: they may have changed since the run."""

_SHOWN_HASH = 16
_SHOWN_FILES = 3


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run that is to be repeated.

    Attributes:
        folder: Where it is.
        manifest: What stands in its manifest.json.
        settings_sha256: The hash of what stands in its run.yaml today.
        config: Its settings, with the places that somebody named anew and another `output_dir`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    settings_sha256: str
    config: RunConfig

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.manifest.get("outcome", {}).get("finished"))


@dataclass(frozen=True, slots=True)
class Checked:
    """A run held against today.

    Attributes:
        today: What is the same and what is not.
        unreadable: Why the data can't be read; None if it can.
    """

    today: Today
    unreadable: DataError | None


def open_run(
    folder: Path, output_dir: str | None = None, moved: Mapping[str, str | list[str]] | None = None
) -> EarlierRun:
    """Read what is recorded of a run.

    Args:
        folder: The run's.
        output_dir: Where it is repeated; None: beside it, as RUN-again.
        moved: New values of settings in `PLACES`.

    Raises:
        RunError: There is no such folder, it holds no run, or its manifest can't be read.
        SettingsError: Its run.yaml can't be used.
    """
    manifest = _read_manifest(folder)
    written = read_config_file(folder / RUN_YAML, frozenset(sections()))
    named = {"output_dir": output_dir or str(_beside(folder)), **(moved or {})}
    flags = [Entry(name, value, f"--{name}") for name, value in named.items()]
    settings = hash_json(settings_of(resolve(written, ()).config))
    return EarlierRun(folder, manifest, settings, resolve(written, flags).config)


def refuse_used_folder(run: EarlierRun) -> None:
    """Refuse to repeat a run into a folder that holds one.

    Raises:
        RunError: It does.
    """
    target = Path(run.config.run.output_dir).expanduser()
    if (target / RUN_YAML).is_file():
        raise RunError(
            "this folder holds a run already",
            where=str(target),
            mend="Name another one by --output_dir, or remove it.",
        )


def refuse_unfinished(run: EarlierRun) -> None:
    """Refuse to compare with a run that has no outcome.

    Raises:
        RunError: It was stopped, or is still at work.
    """
    if not run.is_finished:
        raise RunError(
            "this run did not come to its end: there is no outcome to compare with",
            where=str(run.folder),
            mend="Finish it by --resume_from_checkpoint, or leave --verify out.",
        )


def check_run(run: EarlierRun) -> Checked:
    """Hold what is recorded of a run against today; the data and the model's files are read.

    Raises:
        ModelError: The model or its tokenizer is not there.
        DataError: The hub can't be asked for its data set.
    """
    config = run.config
    check_model_path(config.model)
    recorded = (run.manifest.get("corpus") or run.manifest.get("data", {})).get("inputs", {})
    inputs, unreadable = _inputs(config, recorded)
    data, corpus = _describe_tokenizer(config), None
    if config.preparation.steps:
        corpus = {"data_version": None, "key": None, "packages": deciding_versions()}
        corpus["inputs"] = inputs
    now = describe_run(config, (), data | {"inputs": inputs}, (), corpus)
    settings = {"settings_sha256": run.settings_sha256}
    # A run that went on may have gone on with other settings; it is repeated with the last.
    parts = run.manifest.get("earlier", [])
    now |= settings | {"earlier": [settings if settings.keys() <= p.keys() else {} for p in parts]}
    return Checked(compare_manifests(run.manifest, now), unreadable)


def refuse_other_data(run: EarlierRun, checked: Checked, *, allow_changed: bool) -> None:
    """Raise where the run would not be trained on the data that it was trained on.

    Args:
        run: The run.
        checked: What `check_run` found.
        allow_changed: Take other data for the same files.

    Raises:
        DataError: A file is missing, or is another and that is not allowed.
    """
    if checked.unreadable is not None:
        raise _missing(run, checked.unreadable)
    changed = checked.today.changed_data
    if changed and not allow_changed:
        told = "; ".join(f"{one.name} {_then_now(one.then, one.now)}" for one in changed)
        raise DataError(
            f"the data of the run has changed: {told}",
            where=str(run.folder),
            mend="Bring back the files as they were, or train on these by --allow_changed_data.",
        )


def reproduce(
    run: EarlierRun, command: Sequence[str], screen: Screen, stop: StopRequest
) -> TrainResult:
    """Train as the run did, on as many threads and in micro-batches of the same size.

    Args:
        run: The run.
        command: The command line, for the new run's manifest.
        screen: Shows what happens.
        stop: Asked after each step.

    Raises:
        LuthierError: Anything that the user can mend.
    """
    if run.manifest.get("earlier"):
        screen.say("The run was stopped and went on; it is repeated in one piece.")
    threads = run.manifest.get("computing", {}).get("threads")
    notice = use_threads(threads) if threads else None
    if notice is not None:
        screen.notice(notice)
    max_positions = run.manifest.get("outcome", {}).get("max_positions")
    return run_training(run.config, command, screen, stop, max_positions)


def verify(run: EarlierRun, result: TrainResult) -> Comparison:
    """Compare the outcome of a finished reproduction with the run's."""
    recorded = run.manifest.get("outcome", {}).get("weights_sha256")
    return compare_runs(run.folder, result.folder, recorded)


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise RunError(
            "there is no such folder",
            where=str(folder),
            mend="Name the output_dir of a run, for example: luthier reproduce output/lora-sft",
        )
    for name in (RUN_YAML, MANIFEST):
        if not (folder / name).is_file():
            raise RunError(
                f"this folder holds no run: {name} is missing",
                where=str(folder),
                mend="Name the output_dir of a run: run.yaml and manifest.json stand at its top.",
            )
    try:
        found: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(
            "the manifest is damaged",
            where=str(folder / MANIFEST),
            mend="Train anew from the run's settings: luthier train RUN/run.yaml --output_dir NEW.",
        )
    return found


def _beside(folder: Path) -> Path:
    # Not the folder as given: `.` has no name.
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}-again")


def _inputs(
    config: RunConfig, recorded: Mapping[str, Any]
) -> tuple[dict[str, Any], DataError | None]:
    """Return the data's files as they are today, and why a side of them can't be read."""
    any_kind = bool(config.preparation.steps) or stage_of(config).rows.is_judged
    found: dict[str, Any] = {}
    problem: DataError | None = None
    for side, sources in (("train", resolve_train), ("val", resolve_val)):
        try:
            found[side] = describe_inputs(sources(config.data, any_kind=any_kind))
        except DataError as error:
            found[side] = [{**source, "sha256": NOT_READ} for source in recorded.get(side, [])]
            problem = problem or error
    return found, problem


def _describe_tokenizer(config: RunConfig) -> dict[str, Any]:
    tokenizer = run_tokenizer(config)[0]
    kind = stage_of(config).rows
    work = describe_work(config.data, config.tokens, tokenizer, config.run.seed, kind)
    facts = {"tokenizer": work["tokenizer"]}
    if "template" in work:
        facts["template_sha256"] = hash_text(work["template"])
    return facts | ({"date": work["date"]} if "date" in work else {})


def _missing(run: EarlierRun, problem: DataError) -> DataError:
    recorded = (run.manifest.get("corpus") or run.manifest.get("data", {})).get("inputs", {})
    files = [source for side in recorded.values() for source in side]
    told = ", ".join(
        f"{source['name']} (sha256 {str(source.get('sha256'))[:_SHOWN_HASH]})"
        for source in files[:_SHOWN_FILES]
    )
    more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
    mend = f"The run read {told}{more}. Name where it is now, for example by --train_file."
    started = run.manifest.get("working_folder")
    if started is not None and Path(started) != Path.cwd():
        mend += f" The run was started in {started}: its relative paths begin there."
    return DataError(
        f"the data of the run can't be read: {problem.problem}", where=problem.where, mend=mend
    )


def _then_now(then: str, now: str) -> str:
    if then == NOT_THERE:
        return "was not there"
    if now == NOT_THERE:
        return f"was {then[:_SHOWN_HASH]}, and is not there"
    return f"was {then[:_SHOWN_HASH]}, and is {now[:_SHOWN_HASH]}"
