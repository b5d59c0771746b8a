"""Find the checkpoint to go on from, and refuse one that belongs to other mathematics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from luthier.checkpoints.manifest import read_manifest, verify
from luthier.checkpoints.store import newest_good
from luthier.core.errors import RunError
from luthier.recipes.run_config import RunConfig

# What may differ between a run and its continuation without changing a single weight.
_FREE = frozenset(
    {"per_device_eval_batch_size", "dataloader_num_workers", "eval_strategy", "eval_steps"}
    | {"eval_on_start", "save_strategy", "save_steps", "logging_steps", "bf16", "fp16"}
)


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
    values |= {"seed": str(config.run.seed), "data": data_key, "precision": precision}
    return values | {"model_name_or_path": config.model.model_name_or_path}


def find_checkpoint(
    config: RunConfig, folder: Path, say: Callable[[str], None]
) -> Path | None:
    """Return the checkpoint that the settings ask to go on from, verified; None for a new run.

    Args:
        config: Whose `resume_from_checkpoint` is false, true (newest good) or a path.
        folder: The run's folder.
        say: Told which damaged checkpoints were passed over.

    Raises:
        RunError: There is none, or the named one is damaged.
    """
    wanted = config.checkpoints.resume_from_checkpoint
    if wanted is False:
        return None
    if isinstance(wanted, str):
        named = Path(wanted)
        verify(named)
        return named
    found, problems = newest_good(folder)
    for problem in problems:
        say(f"Passed over a damaged checkpoint: {problem}")
    if found is None:
        raise RunError(
            "there is no good checkpoint to go on from",
            where=str(folder / "checkpoints"),
            mend="Take --resume_from_checkpoint out to start anew.",
        )
    return found


def refuse_other_run(checkpoint: Path, fingerprint: Mapping[str, str]) -> None:
    """Raise if a checkpoint was made with other settings or data.

    Raises:
        RunError: Names each difference with both values.
    """
    saved = read_manifest(checkpoint)["fingerprint"]
    differences = [
        f"{name}: {saved.get(name)} -> {fingerprint.get(name)}"
        for name in sorted(saved.keys() | fingerprint.keys())
        if saved.get(name) != fingerprint.get(name)
    ]
    if differences:
        raise RunError(
            "this checkpoint was made with other settings: " + "; ".join(differences),
            where=str(checkpoint),
            mend="Use the same settings to go on, or another output_dir for a new run.",
        )
