"""Trackers by name, and whether their packages are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from luthier.core.errors import MissingExtraError
from luthier.trackers.mlflow import MLflow
from luthier.trackers.settings import TrackingSettings
from luthier.trackers.swanlab import SwanLab
from luthier.trackers.tensorboard import TensorBoard
from luthier.trackers.tracker import Tracker
from luthier.trackers.trackio import Trackio
from luthier.trackers.wandb import WandB


@dataclass(frozen=True, slots=True)
class Known:
    """A tracker that luthier knows.

    Attributes:
        build: Makes one; its package is not loaded before it opens a run.
        package: What it needs.
        extra: luthier's extra that brings the package.
    """

    build: Callable[[], Tracker]
    package: str
    extra: str


TRACKERS: Mapping[str, Known] = {
    "tensorboard": Known(TensorBoard, "tensorboard", "board"),
    "wandb": Known(WandB, "wandb", "wandb"),
    "mlflow": Known(MLflow, "mlflow", "mlflow"),
    "trackio": Known(Trackio, "trackio", "trackio"),
    "swanlab": Known(SwanLab, "swanlab", "swanlab"),
}
"""All trackers, by their names in `report_to`."""


def require_packages(settings: TrackingSettings) -> None:
    """Find out whether the packages of a run's trackers are installed, without loading them.

    Raises:
        MissingExtraError: One is not.
    """
    for name in settings.trackers:
        known = TRACKERS[name]
        spec = find_spec(known.package)
        # W&B's own folder `wandb` in the working folder would pass for a package; it has no origin.
        if spec is None or spec.origin is None:
            raise MissingExtraError.of(known.package, known.extra, f"report_to: {name}")
