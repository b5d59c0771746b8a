"""Find the checkpoint to go on from, and refuse one that belongs to other mathematics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from luthier.checkpoints.listing import BY_NAME, find_by_name
from luthier.checkpoints.listing import FOLDER as CHECKPOINTS
from luthier.checkpoints.manifest import read_manifest, verify
from luthier.contracts.notice import Notice
from luthier.core.errors import RunError, SettingsError, did_you_mean
from luthier.models.settings import FreezeTuning, FullTuning, LoraTuning, QuantizationSettings
from luthier.recipes.run_config import RunConfig
from luthier.recipes.stages import stage_of

# What may differ between a run and its continuation without changing a single weight.
_FREE = frozenset(
    {"per_device_eval_batch_size", "dataloader_num_workers", "eval_strategy", "eval_steps"}
    | {"eval_on_start", "save_strategy", "save_steps", "logging_steps", "bf16", "fp16"}
    | {"freeze_cache", "freeze_cache_memory_gib", "freeze_cache_disk_gib"}
)

# What the tensors of a checkpoint belong to: model, adapter, optimiser.
_FIXED = frozenset(
    {"model_name_or_path", "optim", "new_special_tokens", "add_tokens"}
    | {
        name
        for part in (LoraTuning, FreezeTuning, FullTuning, QuantizationSettings)
        for name in part.model_fields
    }
)

_NAMES = {"data": "data (files, template and their settings, as a hash)"}


def run_fingerprint(config: RunConfig, data_key: str, precision: str) -> dict[str, str]:
    """Return everything that the weights of a run depend on, by name.

    Args:
        config: The settings, as `settle_packing` gives them.
        data_key: Hash of the prepared data (inputs, tokenizer, template, settings).
        precision: The type that the run computes in.
    """
    sections = (config.tuning, config.quantization, config.batches, config.objective)
    sections += (config.optimizer, config.schedule, config.training)
    of_stage = stage_of(config).sections
    sections += tuple(getattr(config, name) for name in of_stage)
    values = {
        name: str(value)
        for section in sections
        for name, value in section.model_dump().items()
        if name not in _FREE
    }
    if of_stage:
        values |= {"stage": config.run.stage}
    if config.batches.packing is not True:
        del values["packing_window"]
    if not config.batches.is_auto:
        del values["train_batch_size"]
    for name in ("new_special_tokens", "add_tokens"):
        if tokens := getattr(config.model, name):  # Older checkpoints have no such names.
            values[name] = str(tokens)
    values |= {"seed": str(config.run.seed), "data": data_key, "precision": precision}
    return values | {"model_name_or_path": config.model.model_name_or_path}


def find_checkpoint(config: RunConfig, folder: Path, say: Callable[[str], None]) -> Path | None:
    """Return the checkpoint that the settings ask to go on from, verified; None for a new run.

    Args:
        config: Whose `resume_from_checkpoint` is false, true or latest (newest good), best (of
            the lowest validation loss), or the path of a checkpoint or of another run (its newest
            good).
        folder: The run's folder.
        say: Told which damaged checkpoints were passed over.

    Raises:
        RunError: There is none, or the named one is damaged.
    """
    wanted = config.checkpoints.resume_from_checkpoint
    if wanted is False:
        return None
    by_name = wanted is True or wanted in BY_NAME
    name = wanted if wanted in BY_NAME else "latest"
    named = folder if by_name else Path(str(wanted)).expanduser()
    if not named.is_dir():
        raise RunError(
            "there is no such checkpoint or run folder",
            where=str(named),
            mend=_nearest_checkpoint(named),
        )
    if not _holds_checkpoints(named) and not by_name:
        verify(named)
        return named
    found, problems = find_by_name(named, name)
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


def settle_differences(
    checkpoint: Path, fingerprint: Mapping[str, str], allowed: Sequence[str]
) -> tuple[Notice, ...]:
    """Refuse a checkpoint that was made with other settings or data, but for what is allowed.

    Args:
        checkpoint: Sealed.
        fingerprint: Of the run that is to go on from it.
        allowed: Names whose values may differ (`allow_change`).

    Returns:
        What differs and is allowed.

    Raises:
        SettingsError: A name is unknown, or can't be changed on the way.
        RunError: Names each difference that is not allowed, with both values.
    """
    saved = read_manifest(checkpoint)["fingerprint"]
    # A setting that is of no use any more (packing_window, say) stands in the older one only.
    known = saved.keys() | fingerprint.keys()
    for name in allowed:
        if name not in known:
            raise SettingsError(
                f"allow_change: {name} is nothing that a run depends on",
                mend=did_you_mean(name, known - _FIXED),
            )
        if name in _FIXED:
            raise SettingsError(
                f"allow_change: {name} can't change on the way, for the checkpoint's tensors "
                "belong to it",
                mend="Begin a new run in another output_dir. It can start from this one's model.",
            )
    different = {
        name: (str(saved.get(name)), str(fingerprint.get(name)))
        for name in sorted(known)
        if saved.get(name) != fingerprint.get(name)
    }
    refused = {name: values for name, values in different.items() if name not in allowed}
    if refused:
        lines = [
            f"{_NAMES.get(name, name)}: {was} -> {now}" for name, (was, now) in refused.items()
        ]
        mend = "Use the same settings to go on, or another output_dir for a new run."
        changeable = [name for name in refused if name not in _FIXED]
        if len(changeable) == len(refused):
            names = ",".join([*changeable, *allowed])
            mend += f" To go on all the same: --allow_change {names}"
        raise RunError(
            "this checkpoint was made with other settings: " + "; ".join(lines),
            where=str(checkpoint),
            mend=mend,
        )
    return tuple(Notice(name, was, now, "allow_change") for name, (was, now) in different.items())
