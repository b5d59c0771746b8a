"""All corpus steps by name, in the order in which they make sense.

Comes in: names and settings. Goes out: steps ready to run, and what their results depend on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

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
from luthier.corpus.steps.own import OwnStep
from luthier.corpus.steps.own_file import OwnFile, read_own_file
from luthier.corpus.steps.pii import Pii, PiiSettings
from luthier.corpus.steps.quality import Quality, QualitySettings
from luthier.corpus.steps.repair import Repair, RepairSettings
from luthier.corpus.steps.sample import Sample, SampleSettings
from luthier.corpus.steps.schema import Schema, SchemaSettings
from luthier.corpus.steps.semantic import SemanticDuplicates, SemanticSettings, model_files


@dataclass(frozen=True, slots=True)
class StepKind:
    """A step that can be asked for.

    Attributes:
        settings: Its settings model.
        build: Makes the step of its settings.
        files: The files that its settings name, whose content its result depends on.
        paths: The settings that name them: where a file lies changes no row.
    """

    settings: type[Settings]
    build: Callable[[Any], Step | GlobalStep]
    files: Callable[[Any], Sequence[str]] = lambda _settings: ()
    paths: frozenset[str] = frozenset()

    def facts(self, settings: Settings) -> dict[str, Any]:
        """Return what the step's result depends on: its settings, and the content of its files."""
        files = [_content(file) for file in self.files(settings)]
        return settings.model_dump(mode="json", exclude=set(self.paths) if files else None) | {
            "files": files
        }


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
        frozenset({"quality_word_list"}),
    ),
    "language": StepKind(LanguageSettings, Language),
    "pii": StepKind(PiiSettings, Pii),
    "exact": StepKind(ExactSettings, ExactDuplicates),
    "near": StepKind(NearSettings, NearDuplicates),
    "semantic": StepKind(
        SemanticSettings,
        SemanticDuplicates.of,
        lambda s: model_files(s.semantic_model),
        frozenset({"semantic_model"}),
    ),
    "decontaminate": StepKind(
        DecontaminateSettings,
        _decontaminate,
        lambda s: s.decontaminate_files,
        frozenset({"decontaminate_files"}),
    ),
    "sample": StepKind(SampleSettings, Sample),
}

STANDARD: tuple[str, ...] = ("repair", "schema", "quality", "language", "pii", "exact", "near")
"""What `luthier prepare` does where nobody chooses."""


def plan_steps(
    names: Sequence[str],
    settings: Mapping[str, Settings],
    *,
    own_file: Path | None = None,
    own_settings: Mapping[str, Mapping[str, Any]] | None = None,
    evaluation_files: Sequence[str] = (),
) -> list[PlannedStep]:
    """Build steps in the order of their names.

    Args:
        names: Which steps, in order.
        settings: The settings of each built-in step by its name; one without has its defaults.
        own_file: The user's file of steps; `steps/own.py` says what stands in it.
        own_settings: For steps of that file, the settings of each as plain values.
        evaluation_files: The run's own validation files: `decontaminate` looks for them too.

    Raises:
        SettingsError: A name is unknown, stands twice or for two steps, a step can't work as it is
            set, or the user's file can't be run.
        DataError: A file that a step reads can't be read.
        MissingExtraError: A step needs a package that is not installed.
        ModelError: The model of a step can't be loaded.
    """
    own = read_own_file(own_file) if own_file is not None else None
    given = own_settings or {}
    _check_names(names, own)
    _check_own_settings(names, given)
    plan: list[PlannedStep] = []
    for name in names:
        if own is not None and name not in STEPS:
            facts = {"own": to_jsonable_python(given.get(name, {})), "files": [own.sha256]}
            plan.append(PlannedStep(OwnStep.of(own, name, given.get(name, {})), facts))
            continue
        kind = STEPS[name]
        chosen = settings.get(name) or kind.settings()
        if isinstance(chosen, DecontaminateSettings):
            chosen = _with_files(chosen, evaluation_files)
        facts = kind.facts(chosen)
        plan.append(PlannedStep(kind.build(chosen), facts))
    return plan


def _check_names(names: Sequence[str], own: OwnFile | None) -> None:
    """Check that each name is of one step and stands once."""
    functions = own.functions if own is not None else {}
    for name, times in Counter(names).items():
        if name not in STEPS and name not in functions:
            raise SettingsError(
                f"there is no step {name}",
                where="steps",
                mend=did_you_mean(name, [*STEPS, *functions]),
            )
        if name in STEPS and name in functions:
            raise SettingsError(
                f"the function {name} has the name of a built-in step",
                where=str(own.path) if own is not None else None,
                mend="Give the function another name.",
            )
        if times > 1:
            raise SettingsError(
                f"the step {name} stands twice", where="steps", mend="Give it once."
            )


def _check_own_settings(names: Sequence[str], own_settings: Mapping[str, Any]) -> None:
    """Check that settings for own steps are of steps that run."""
    own_names = [name for name in names if name not in STEPS]
    for name in own_settings:
        if name in STEPS:
            leaf = next(iter(STEPS[name].settings.model_fields), "")
            raise SettingsError(
                f"the step {name} is built in, and takes no settings here",
                where=f"step_settings.{name}",
                mend=f"Its settings have names of their own, such as {leaf}." if leaf else None,
            )
        if name not in own_names:
            raise SettingsError(
                f"the step {name} is not among the steps of this run",
                where=f"step_settings.{name}",
                mend=did_you_mean(name, own_names) if own_names else "Name it in steps.",
            )


def _with_files(settings: DecontaminateSettings, files: Sequence[str]) -> DecontaminateSettings:
    """Return the settings with further evaluation sets; each file once, however it is written."""
    places: dict[Path, str] = {}
    for file in (*settings.decontaminate_files, *files):
        places.setdefault(Path(file).resolve(), file)
    return settings.model_copy(update={"decontaminate_files": tuple(places.values())})


def _content(file: str) -> str:
    try:
        return hash_file(Path(file))
    except OSError as error:
        raise DataError(
            f"the file can't be read: {error.strerror}", where=file, mend="Check the path."
        ) from None
