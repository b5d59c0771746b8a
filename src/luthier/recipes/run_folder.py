"""The run's folder: opened before anything slow, never written over by accident.

What stands in it is described in the README. `run.yaml` holds every setting and can be trained from
again as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from luthier.checkpoints.settings import CheckpointSettings
from luthier.checkpoints.store import remove_staging
from luthier.core.errors import RunError
from luthier.recipes.run_config import RunConfig

RUN_YAML = "run.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
REJECTED = "rejected.jsonl"

_ACTIONS = ("resume_from_checkpoint", "overwrite_output_dir")


def open_run_folder(output_dir: str, settings: CheckpointSettings) -> Path:
    """Create the folder of a run, or take over the one that is there if the settings say so.

    Raises:
        RunError: The folder holds a run or other files and nobody said what to do with them, or
            it can't be written.
    """
    folder = Path(output_dir).expanduser()
    holds_run = (folder / RUN_YAML).is_file()
    try:
        if settings.overwrite_output_dir and holds_run and not settings.resume_from_checkpoint:
            shutil.rmtree(folder)
        elif not settings.resume_from_checkpoint:
            _refuse_used(folder, holds_run)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".luthier-write-test"
        probe.write_bytes(b"")
        probe.unlink()
        remove_staging(folder)
    except OSError as error:
        raise RunError(
            f"output_dir can't be written: {error.strerror or error}",
            where=str(folder),
            mend="Choose another output_dir, or mend its permissions.",
        ) from None
    return folder


def _refuse_used(folder: Path, holds_run: bool) -> None:
    if holds_run:
        raise RunError(
            "output_dir holds a run already",
            where=str(folder),
            mend="Go on with it by --resume_from_checkpoint, remove it by --overwrite_output_dir, "
            "or choose another --output_dir.",
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise RunError(
            "output_dir is not empty, and what is in it is no run of luthier's",
            where=str(folder),
            mend="Choose another --output_dir.",
        )


def write_run_yaml(folder: Path, config: RunConfig) -> None:
    """Write every setting of a run, in sections, so that `luthier train run.yaml` repeats it."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    with (folder / RUN_YAML).open("w", encoding="utf-8") as stream:
        stream.write("# Every setting of this run. `luthier train` takes this file as it is.\n")
        yaml.dump(settings_of(config), stream)


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the settings as plain values in sections, without one-time actions."""
    sections = config.model_dump(mode="json")
    for section in sections.values():
        for action in _ACTIONS:
            section.pop(action, None)
    if config.quantization.bits is None:
        # Written out, its defaults would read as a wish for 4 bits.
        del sections["quantization"]
    return sections
