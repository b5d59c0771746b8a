"""Settings of the trackers: which, under which names, and what they are shown."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from luthier.contracts.settings import Settings

ReportTo = Literal["none", "tensorboard", "wandb", "mlflow", "trackio", "swanlab"]

WITH_HISTOGRAMS = frozenset({"tensorboard", "wandb", "trackio"})
"""Trackers that can draw histograms."""


class TrackingSettings(Settings):
    """Trackers that show a run beside its own metrics.jsonl. The names are transformers'."""

    report_to: ReportTo | list[ReportTo] = "none"
    """Trackers: tensorboard, wandb, mlflow, trackio, swanlab, one or a list of them. `none`: the
    run folder alone. One that fails is switched off, and training goes on."""

    project: str = Field(default="luthier", min_length=1)
    """Project of W&B, trackio and SwanLab, experiment of MLflow."""

    run_name: str | None = Field(default=None, min_length=1)
    """What the trackers call the run. Default: the name of the folder output_dir."""

    logging_dir: str | None = Field(default=None, min_length=1)
    """Folder for what trackers keep on the disk; each run has a folder of its run_name in it.
    Default: `logs` in output_dir."""

    log_histograms: int | None = Field(default=None, gt=0)
    """Optimiser steps between histograms of the trained weights and of their gradients. Default:
    none, for each looks at every trained number."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _by_commas(cls, value: Any) -> Any:
        if isinstance(value, str) and "," in value:
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("report_to")
    @classmethod
    def _none_or_some(cls, value: ReportTo | list[ReportTo]) -> ReportTo | list[ReportTo]:
        if isinstance(value, list) and "none" in value and len(set(value)) > 1:
            raise ValueError("report_to names none beside a tracker: keep one of the two")
        return value

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers, each once."""
        named = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        return tuple(dict.fromkeys(name for name in named if name != "none"))
