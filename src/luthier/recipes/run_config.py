"""RunConfig: the whole of a run's settings, composed of the components' own.

Leaf names are unique over all sections, so the sections are optional in a file: a flat file and a
sectioned file say the same (`config_layout.py`). Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from luthier.batches.settings import BatchSettings
from luthier.checkpoints.settings import CheckpointSettings
from luthier.contracts.settings import Settings
from luthier.corpus.settings import CorpusSettings, PreparationSettings
from luthier.corpus.steps.settings import (
    DecontaminateSettings,
    ExactSettings,
    GroupSettings,
    LanguageSettings,
    NearSettings,
    PiiSettings,
    QualitySettings,
    RepairSettings,
    SampleSettings,
    SchemaSettings,
    SemanticSettings,
)
from luthier.dataset.settings import DatasetSettings
from luthier.engine.settings import (
    AdamWOptimizer,
    GuardSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)
from luthier.evaluation.settings import SamplingSettings
from luthier.models.settings import (
    LoraTuning,
    ModelSettings,
    QuantizationSettings,
    TuningSettings,
)
from luthier.objectives.settings import (
    GrpoSettings,
    ObjectiveSettings,
    PreferenceSettings,
    RewardSettings,
)
from luthier.rollouts.settings import RolloutSettings
from luthier.trackers.settings import TrackingSettings

STEP_SETTINGS: Mapping[str, type[Settings]] = {
    "repair": RepairSettings,
    "schema": SchemaSettings,
    "quality": QualitySettings,
    "language": LanguageSettings,
    "pii": PiiSettings,
    "exact": ExactSettings,
    "near": NearSettings,
    "semantic": SemanticSettings,
    "decontaminate": DecontaminateSettings,
    "sample": SampleSettings,
}
"""The settings of each corpus step, for checks that load no step."""


NAMED_AFTER_LOSS = frozenset({"orpo", "simpo", "cpo"})
"""Stages that compare two answers without a reference; each is `pref_loss` of the same name."""


STAGE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    **{stage: {"pref_loss": stage} for stage in NAMED_AFTER_LOSS},
    # What KTO compares with is estimated from the rows of a micro-batch.
    "kto": {"per_device_train_batch_size": 8},
}
"""Defaults that are others in a stage than elsewhere."""


class RunSettings(Settings):
    """The run as a whole."""

    stage: Literal["sft", "pt", "dpo", "orpo", "simpo", "cpo", "kto", "rm", "grpo"] = "sft"
    """What is learned: sft (to answer, from conversations), pt (text, from documents), dpo, orpo,
    simpo or cpo (which of two answers is better), kto (from answers that are wanted or not), rm
    (to give the better of two answers the higher reward: a reward model), grpo (from rewards of the
    model's own answers)."""

    output_dir: str = "output"
    """Folder of the run: settings, metrics, checkpoints, and the model at its top."""

    trainer: Literal["luthier", "transformers"] = "luthier"
    """The loop: luthier's own, or transformers.Trainer on the same batches and objective."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of every random choice."""

    deepspeed: str | None = None
    """A DeepSpeed JSON file. One process has nothing to shard; see the notice that it gives."""

    callbacks: list[str] = Field(default_factory=list)
    """Your own metrics, stops and hooks, each named as FILE.py:NAME of a class (docs/watching.md
    says what it may have)."""


class RunConfig(Settings):
    """All settings of a run, in sections."""

    run: RunSettings = RunSettings()
    model: ModelSettings
    tuning: TuningSettings = LoraTuning()
    quantization: QuantizationSettings = QuantizationSettings()
    data: CorpusSettings = CorpusSettings()
    preparation: PreparationSettings = PreparationSettings()
    repair: RepairSettings = RepairSettings()
    row_schema: SchemaSettings = SchemaSettings()
    quality: QualitySettings = QualitySettings()
    language: LanguageSettings = LanguageSettings()
    pii: PiiSettings = PiiSettings()
    exact: ExactSettings = ExactSettings()
    near: NearSettings = NearSettings()
    semantic: SemanticSettings = SemanticSettings()
    decontaminate: DecontaminateSettings = DecontaminateSettings()
    sample: SampleSettings = SampleSettings()
    split: GroupSettings = GroupSettings()
    tokens: DatasetSettings = DatasetSettings()
    batches: BatchSettings = BatchSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    preference: PreferenceSettings = PreferenceSettings()
    reward: RewardSettings = RewardSettings()
    grpo: GrpoSettings = GrpoSettings()
    rollouts: RolloutSettings = RolloutSettings()
    optimizer: OptimizerSettings = AdamWOptimizer()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    tracking: TrackingSettings = TrackingSettings()
    guards: GuardSettings = GuardSettings()
    sampling: SamplingSettings = SamplingSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
