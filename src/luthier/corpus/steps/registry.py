"""All corpus steps by name, in the order in which they make sense.

Comes in: names and settings. Goes out: steps ready to run, and what their results depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.contracts.corpus_step import GlobalStep, Step
from luthier.contracts.settings import Settings
from luthier.core.errors import DataError, SettingsError, did_you_mean
from luthier.core.hashing import hash_file
from luthier.corpus.pipeline import PlannedStep
from luthier.corpus.steps.decontaminate import (
    Decontaminate,
    DecontaminateSettings,
    index_evaluation,
    read_evaluation,
)
from luthier.corpus.steps.exact import ExactDuplicates, ExactSettings
from luthier.corpus.steps.language import Language, LanguageSettings
from luthier.corpus.steps.near import NearDuplicates, NearSettings
from luthier.corpus.steps.pii import Pii, PiiSettings
from luthier.corpus.steps.quality import Quality, QualitySettings
from luthier.corpus.steps.repair import Repair, RepairSettings
from luthier.corpus.steps.schema import Schema, SchemaSettings


@dataclass(frozen=True, slots=True)
class StepKind:
    """A step that can be asked for.

    Attributes:
        settings: Its settings model.
        build: Makes the step of its settings.
        files: The files that its settings name, whose content its result depends on.
    """

    settings: type[Settings]
    build: Callable[[Any], Step | GlobalStep]
    files: Callable[[Any], Sequence[str]] = lambda _settings: ()


def _decontaminate(settings: DecontaminateSettings) -> Decontaminate:
    if not settings.decontaminate_files:
        raise SettingsError(
            "the step decontaminate has no evaluation set to look for",
            where="decontaminate_files",
            mend="Name the files of the tests that must not stand in the training data.",
        )
    sets = [read_evaluation(Path(file)) for file in settings.decontaminate_files]
    return Decontaminate(index_evaluation(sets), settings)


STEPS: Mapping[str, StepKind] = {
    "repair": StepKind(RepairSettings, Repair),
    "schema": StepKind(SchemaSettings, Schema),
    "quality": StepKind(
        QualitySettings,
        Quality.of,
        lambda s: [s.quality_word_list] if s.quality_word_list else [],
    ),
    "language": StepKind(LanguageSettings, Language),
    "pii": StepKind(PiiSettings, Pii),
    "exact": StepKind(ExactSettings, ExactDuplicates),
    "near": StepKind(NearSettings, NearDuplicates),
    "decontaminate": StepKind(
        DecontaminateSettings, _decontaminate, lambda s: s.decontaminate_files
    ),
}

STANDARD = ("repair", "schema", "quality", "language", "pii", "exact", "near")
"""What `luthier prepare` does where nobody chooses."""


def plan_steps(names: Sequence[str], settings: Mapping[str, Settings]) -> list[PlannedStep]:
    """Build steps in the order of their names.

    Args:
        names: Which steps, in order.
        settings: The settings of each step by its name; a step without has its defaults.

    Raises:
        SettingsError: A name is unknown or stands twice, or a step can't work as it is set.
        DataError: A file that a step reads can't be read.
        MissingExtraError: A step needs a package that is not installed.
    """
    plan: list[PlannedStep] = []
    for name in names:
        kind = STEPS.get(name)
        if kind is None:
            raise SettingsError(
                f"there is no step {name}", where="steps", mend=did_you_mean(name, STEPS)
            )
        if list(names).count(name) > 1:
            raise SettingsError(
                f"the step {name} stands twice", where="steps", mend="Give it once."
            )
        chosen = settings.get(name) or kind.settings()
        facts = chosen.model_dump(mode="json")
        facts["files"] = [_content(file) for file in kind.files(chosen)]
        plan.append(PlannedStep(kind.build(chosen), facts))
    return plan


def _content(file: str) -> str:
    try:
        return hash_file(Path(file))
    except OSError as error:
        raise DataError(
            f"the file can't be read: {error.strerror}", where=file, mend="Check the path."
        ) from None
