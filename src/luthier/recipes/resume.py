"""Find the checkpoint to go on from, and refuse one that belongs to other mathematics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from luthier.checkpoints.manifest import read_manifest, verify
from luthier.checkpoints.store import FOLDER as CHECKPOINTS
from luthier.checkpoints.store import newest_good
from luthier.core.errors import RunError, did_you_mean
from luthier.recipes.run_config import RunConfig

# What may differ between a run and its continuation without changing a single weight.
_FREE = frozenset(
    {"per_device_eval_batch_size", "dataloader_num_workers", "eval_strategy", "eval_steps"}
    | {"eval_on_start", "save_strategy", "save_steps", "logging_steps", "bf16", "fp16"}
    | {"freeze_cache", "freeze_cache_memory_gib", "freeze_cache_disk_gib"}
)

_NAMES = {"data": "data (files, template and their settings, as a hash)"}


def run_fingerprint(config: RunConfig, data_key: str, precision: str) -> dict[str, str]:
    """Return everything that the weights of a run depend on, by name.

    Args:
        config: The settings.
        data_key: Hash of the prepared data (inputs, tokenizer, template, settings).
        precision: The type that the run computes in.
    """
    sections = (config.tuning, config.quantization, config.batches, config.objective)
    sections += (config.optimizer, config.schedule, config.training)
    values = {
        name: str(value)
        for section in sections
        for name, value in section.model_dump().items()
        if name not in _FREE
    }
    if config.batches.packing is not True:
        del values["packing_window"]
    if not config.batches.is_auto:
        del values["train_batch_size"]
    values |= {"seed": str(config.run.seed), "data": data_key, "precision": precision}
    return values | {"model_name_or_path": config.model.model_name_or_path}


def find_checkpoint(config: RunConfig, folder: Path, say: Callable[[str], None]) -> Path | None:
    """Return the checkpoint that the settings ask to go on from, verified; None for a new run.

    Args:
        config: Whose `resume_from_checkpoint` is false, true (newest good), or the path of a
            checkpoint or of another run (its newest good).
        folder: The run's folder.
        say: Told which damaged checkpoints were passed over.

    Raises:
        RunError: There is none, or the named one is damaged.
    """
    wanted = config.checkpoints.resume_from_checkpoint
    if wanted is False:
        return None
    named = folder if wanted is True else Path(wanted).expanduser()
    if not named.is_dir():
        raise RunError(
            "there is no such checkpoint or run folder",
            where=str(named),
            mend=_nearest_checkpoint(named),
        )
    if not _holds_checkpoints(named) and wanted is not True:
        verify(named)
        return named
    found, problems = newest_good(named)
    for problem in problems:
        say(f"Passed over a damaged checkpoint: {problem}")
    if found is None:
        raise RunError(
            "there is no good checkpoint to go on from",
            where=str(named / CHECKPOINTS),
            mend="Take --resume_from_checkpoint out to start anew.",
        )
    return found


def _holds_checkpoints(folder: Path) -> bool:
    return (folder / CHECKPOINTS).is_dir()


def _nearest_checkpoint(missing: Path) -> str:
    names = [path.name for path in missing.parent.glob("step-*")]
    if names:
        return did_you_mean(missing.name, names)
    return "Name a folder below RUN/checkpoints, or give the bare flag for the newest good one."


def refuse_other_run(checkpoint: Path, fingerprint: Mapping[str, str]) -> None:
    """Raise if a checkpoint was made with other settings or data.

    Raises:
        RunError: Names each difference with both values.
    """
    saved = read_manifest(checkpoint)["fingerprint"]
    differences = [
        f"{_NAMES.get(name, name)}: {saved.get(name)} -> {fingerprint.get(name)}"
        for name in sorted(saved.keys() | fingerprint.keys())
        if saved.get(name) != fingerprint.get(name)
    ]
    if differences:
        raise RunError(
            "this checkpoint was made with other settings: " + "; ".join(differences),
            where=str(checkpoint),
            mend="Use the same settings to go on, or another output_dir for a new run.",
        )
