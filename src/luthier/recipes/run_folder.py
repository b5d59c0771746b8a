"""The run's folder: opened before anything slow, never written over by accident.

What stands in it is described in the README. `run.yaml` holds every setting and can be trained from
again as it is.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from luthier.checkpoints.listing import BY_NAME, remove_staging
from luthier.checkpoints.settings import CheckpointSettings
from luthier.core.errors import RunError
from luthier.core.files import STAGING_PREFIX, write_text
from luthier.core.lock import LOCK
from luthier.recipes.run_config import RunConfig
from luthier.recipes.run_record import MANIFEST as MANIFEST
from luthier.recipes.run_record import METRICS as METRICS
from luthier.recipes.run_record import RUN_YAML as RUN_YAML

REJECTED = "rejected.jsonl"
LR_FIND = "lr-find"
"""Folder of a learning-rate range test: no part of a run, and left alone by one."""

_RARE_BREAKS = "\r\x85\u2028\u2029\ufeff"
_ACTIONS = ("resume_from_checkpoint", "allow_change", "overwrite_output_dir")


def open_run_folder(config: RunConfig) -> Path:
    """Create the folder of a run, or take over the one that is there if the settings say so.

    Nothing in it is removed yet: `clear_earlier_run` does that once the new run can start.

    Raises:
        RunError: The folder holds a run or other files and nobody said what to do with them, the
            run would remove its own model, or the folder can't be written.
    """
    folder = Path(config.run.output_dir).expanduser()
    if replaces_earlier_run(folder, config.checkpoints):
        refuse_own_model(folder, config)
    elif not _goes_on(folder, config.checkpoints):
        _refuse_used(folder)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"{STAGING_PREFIX}write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # Whoever holds the lock may take it for a dead process's.
    return folder


@contextmanager
def output_errors(folder: Path) -> Generator[None]:
    """Say of an OSError in the block that output_dir can't be written.

    Raises:
        RunError: In its place.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"output_dir can't be written: {error.strerror or error}",
            where=str(folder),
            mend="Choose another output_dir, or mend its permissions.",
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process has left half-written in a run's folder. Hold its lock.

    Raises:
        OSError: It can't be removed.
    """
    for path in folder.glob(f"{STAGING_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    remove_staging(folder)


def replaces_earlier_run(folder: Path, settings: CheckpointSettings) -> bool:
    """Whether the settings say that the run in a folder is to be removed."""
    is_wanted = settings.overwrite_output_dir and not _goes_on(folder, settings)
    return is_wanted and (folder / RUN_YAML).is_file()


def clear_earlier_run(folder: Path) -> None:
    """Remove what is in a run's folder; the folder stays, for it may be a link or a disk.

    Raises:
        RunError: Something in it can't be removed.
    """
    # What marks the folder as a run's goes last: a kill in between leaves it removable.
    for item in sorted(folder.iterdir(), key=lambda item: item.name == RUN_YAML):
        if item.name in (LOCK, LR_FIND):
            continue
        try:
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
        except OSError as error:
            raise RunError(
                f"the earlier run can't be removed: {error.strerror or error}",
                where=str(item),
                mend="Choose another output_dir, or mend its permissions.",
            ) from None


def refuse_own_model(folder: Path, config: RunConfig) -> None:
    """Refuse to remove what is in a folder where the model that is to be trained lies in it.

    Raises:
        RunError: It does.
    """
    adapters = [("adapter_name_or_path", adapter) for adapter in config.model.adapters]
    for name, path in [("model_name_or_path", config.model.model_name_or_path), *adapters]:
        if _is_inside(Path(path), folder):
            raise RunError(
                f"{name} lies in output_dir, which --overwrite_output_dir would remove",
                where=str(folder),
                mend="Choose another --output_dir.",
            )


def _goes_on(folder: Path, settings: CheckpointSettings) -> bool:
    # A checkpoint elsewhere begins a run of its own here.
    wanted = settings.resume_from_checkpoint
    if isinstance(wanted, str) and wanted not in BY_NAME:
        return _is_inside(Path(wanted), folder)
    return bool(wanted)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.expanduser().resolve().is_relative_to(folder.resolve())


def _refuse_used(folder: Path) -> None:
    if (folder / RUN_YAML).is_file():
        raise RunError(
            "output_dir holds a run already",
            where=str(folder),
            mend="Go on with it by --resume_from_checkpoint, remove it by --overwrite_output_dir, "
            "or choose another --output_dir.",
        )
    if folder.is_dir() and not all(_is_no_trouble(item.name) for item in folder.iterdir()):
        raise RunError(
            "output_dir is not empty, and what is in it is no run of luthier's",
            where=str(folder),
            mend="Choose another --output_dir.",
        )


def _is_no_trouble(name: str) -> bool:
    # Left behind by a range test, or by a process that was killed before it had begun a run.
    return name in (LOCK, LR_FIND) or name.startswith(STAGING_PREFIX)


def write_run_yaml(folder: Path, config: RunConfig) -> None:
    """Write every setting of a run, in sections, so that `luthier train run.yaml` repeats it."""
    write_settings(folder / RUN_YAML, config, "Every setting of this run.")


def write_settings(path: Path, config: RunConfig, title: str) -> None:
    """Write a settings file that `luthier train` takes.

    Args:
        path: The file.
        config: Every setting.
        title: What they are, in one line, for the head of the file.
    """
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    stream.write(f"# {title} `luthier train` takes this file as it is.\n")
    yaml.dump(_quoted(settings_of(config)), stream)
    write_text(path, stream.getvalue())


def _quoted(value: Any) -> Any:
    # Written plainly, YAML's rarer line breaks would come back as spaces.
    if isinstance(value, dict):
        return {_quoted(name): _quoted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and any(character in value for character in _RARE_BREAKS):
        return DoubleQuotedScalarString(value)
    return value


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the settings as plain values in sections, without one-time actions."""
    sections = config.model_dump(mode="json")
    for section in sections.values():
        for action in _ACTIONS:
            section.pop(action, None)
    # Written out, a default of this section would read as a wish for 4 bits.
    wished = config.quantization.model_dump(mode="json", exclude_unset=True)
    del sections["quantization"]
    return sections | ({"quantization": wished} if wished else {})
