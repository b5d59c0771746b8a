"""Settings of the objectives."""

from __future__ import annotations

from pydantic import Field

from luthier.contracts.settings import Settings


class ObjectiveSettings(Settings):
    """What the loss is."""

    label_smoothing_factor: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target's probability that is spread evenly over the vocabulary."""
