"""Export a trained model: merge it, write each target, run what was written, and measure it.

The wiring of `luthier export` and `luthier verify`. What is quick to find wrong is found before a
model is loaded. An artifact is written to the side and gets its name when all is done; one that
fails its check is kept as NAME.failed, for looking at it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.core.disk import check_folder, check_room
from luthier.core.errors import RunError, SettingsError, did_you_mean
from luthier.core.files import STAGING_PREFIX, remove_stale_staging, staged_folder
from luthier.export.check import CheckResult
from luthier.export.probe import PROBE_FOLDER, Probe, read_probe, write_probe
from luthier.export.record import changed_files, file_sizes, read_record, write_record
from luthier.export.registry import TARGETS, Wanted, read_targets
from luthier.export.source import Source
from luthier.export.target import Artifact
from luthier.models.load import read_config
from luthier.recipes.answering import find_model
from luthier.recipes.export_probe import make_probe
from luthier.recipes.export_request import ExportRequest
from luthier.recipes.export_source import (
    ExportedModel,
    make_source,
    num_parameters,
    open_exported,
)
from luthier.recipes.manifest import describe_luthier
from luthier.recipes.screen import Screen

FOLDER = "exports"
"""Folder in a run's folder."""
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Exported:
    """One line of the table.

    Attributes:
        folder: Where the artifact is now.
        target: Its target.
        kind: Its type.
        num_bytes: Its size, without the probe.
        seconds: What writing it took; of `verify`, what checking took.
        result: Of the check.
        notes: What a reader has to know.
    """

    folder: Path
    target: str
    kind: str | None
    num_bytes: int
    seconds: float
    result: CheckResult
    notes: tuple[str, ...]


def export(request: ExportRequest, screen: Screen) -> list[Exported]:
    """Write and check every target.

    Args:
        request: What to export.
        screen: Told what takes time.

    Raises:
        LuthierError: Anything that the user can mend. A check that fails is none: it is told in
            the result.
    """
    wanted = _with_dtype(read_targets(request.targets), request.dtype)
    for one in wanted:
        one.target.require()
    place = find_model(request.model)
    model = open_exported(place)
    for one in wanted:
        one.target.refuse(read_config(model.settings).to_dict())
    out = _out_folder(request, model)
    name = _name(model)
    _refuse_existing(out, name, wanted, request.overwrite)
    check_room(out, "the export", "--out to a folder", _needed_bytes(model, wanted))
    remove_stale_staging(out)
    screen.say(f"Loading {request.model}")
    trained = model.load_trained()
    stops = model.stop_token_ids(trained)
    probe = make_probe(model, trained, stops, request.data, screen)
    del trained  # before it is loaded once more, to be merged
    gc.collect()
    with tempfile.TemporaryDirectory(prefix=f"{STAGING_PREFIX}source-", dir=out) as scratch:
        needs_weights = any(one.target.needs_weights for one in wanted)
        if needs_weights and place.adapter is not None:
            screen.say("Merging the adapter into its base, in float32")
        source = make_source(model, stops, Path(scratch), with_weights=needs_weights)
        return [
            _export_one(one, source, probe, out / _folder_name(name, one), screen) for one in wanted
        ]


def verify(folder: str, screen: Screen) -> Exported:
    """Hold an artifact against its hashes, and run its check again.

    Args:
        folder: What `export` made, wherever it is now.
        screen: Told what takes time.

    Raises:
        LuthierError: There is no export, or its target's packages are missing.
    """
    path = Path(folder).expanduser()
    record = read_record(path)
    if record["target"] not in TARGETS:
        raise SettingsError(
            f"this version of luthier has no target {record['target']!r}",
            where=str(path),
            mend=did_you_mean(record["target"], TARGETS),
        )
    target = TARGETS[record["target"]]()
    target.require()
    screen.say(f"Hashing {len(record['files'])} files")
    changed = changed_files(path, record)
    artifact = Artifact(path, record["type"], record["main"], tuple(record["notes"]))
    start = time.monotonic()
    result = CheckResult(problems=tuple(changed))
    if not changed:
        screen.say(f"Running the check of {target.name}")
        result = target.check(artifact, read_probe(path / PROBE_FOLDER))
    seconds = time.monotonic() - start
    return Exported(
        path, target.name, artifact.kind, record["bytes"], seconds, result, artifact.notes
    )


def _export_one(
    wanted: Wanted, source: Source, probe: Probe, final: Path, screen: Screen
) -> Exported:
    target, failed = wanted.target, final.with_name(f"{final.name}.failed")
    screen.say(f"{wanted.label}:")
    # Until its check is passed it is called failed: a crash leaves nothing that looks right.
    with staged_folder(failed) as staging:
        start = time.monotonic()
        artifact = target.write(source, wanted.kind, staging, lambda line: screen.say(f"  {line}"))
        seconds = time.monotonic() - start
        write_probe(probe, staging / PROBE_FOLDER)
        screen.say("  checking")
        result = target.check(artifact, probe)
        write_record(artifact, target.name, result, source.facts, describe_luthier(), seconds)
        num_bytes = _own_bytes(staging)
    place = failed
    if not result.problems:
        with staged_folder(final) as staging:
            staging.rmdir()
            failed.rename(staging)
        place = final
    return Exported(place, target.name, artifact.kind, num_bytes, seconds, result, artifact.notes)


def _own_bytes(folder: Path) -> int:
    sizes = file_sizes(folder).items()
    return sum(size for name, size in sizes if not name.startswith(f"{PROBE_FOLDER}/"))


def _with_dtype(wanted: Sequence[Wanted], dtype: str | None) -> list[Wanted]:
    if dtype is None:
        return list(wanted)
    if dtype not in DTYPES:
        raise SettingsError(
            f"unknown type {dtype!r}", where="--dtype", mend=did_you_mean(dtype, DTYPES)
        )
    if not any(dtype in one.target.types() for one in wanted):
        raise SettingsError(
            "no target that is named writes weights of that type",
            where="--dtype",
            mend="It is for hf; other targets name their type: gguf:Q8_0",
        )
    return [
        replace(one, kind=dtype) if one.kind is None and dtype in one.target.types() else one
        for one in wanted
    ]


def _out_folder(request: ExportRequest, model: ExportedModel) -> Path:
    run = model.place.run
    if request.out is None and run is None:
        raise SettingsError(
            "there is no place for the export: the model is of no run",
            where="--out",
            mend="Name a folder: --out FOLDER",
        )
    out = Path(request.out).expanduser() if request.out is not None else (run or Path()) / FOLDER
    check_folder(out, "the export", "--out to a folder")
    return out


def _name(model: ExportedModel) -> str:
    """Return what artifacts are called after: the run and, of a checkpoint, its step."""
    place = model.place
    folder = place.run or place.folder
    name = place.weights.rpartition("/")[2] if folder is None else folder.resolve().name
    return name if place.checkpoint is None else f"{name}-{place.checkpoint}"


def _folder_name(name: str, wanted: Wanted) -> str:
    return f"{name}-{wanted.label}"


def _refuse_existing(out: Path, name: str, wanted: Sequence[Wanted], overwrite: bool) -> None:
    for one in wanted:
        folder = out / _folder_name(name, one)
        if folder.exists() and not overwrite:
            raise RunError(
                "there is an export of that name already",
                where=str(folder),
                mend="Replace it with --overwrite, or name another folder: --out FOLDER",
            )


def _needed_bytes(model: ExportedModel, wanted: Sequence[Wanted]) -> int:
    """Return about what the artifacts take, and the merged source beside them."""
    count = num_parameters(model.place)
    merged = 4 * count if model.place.adapter is not None else 0
    is_merged = any(one.target.needs_weights for one in wanted)
    artifacts = sum(count * one.target.bits(one.kind) / 8 for one in wanted)
    return int(artifacts) + (merged if is_merged else 0)
