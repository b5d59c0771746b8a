from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.trackers.registry import TRACKERS
from luthier.trackers.settings import WITH_HISTOGRAMS, TrackingSettings


@pytest.mark.parametrize(
    ("report_to", "trackers"),
    [
        ("none", ()),
        ([], ()),
        (["none"], ()),
        ("wandb", ("wandb",)),
        (["wandb", "tensorboard", "wandb"], ("wandb", "tensorboard")),
        ("wandb, tensorboard", ("wandb", "tensorboard")),
    ],
)
def test_one_tracker_or_several(report_to: object, trackers: tuple[str, ...]):
    assert TrackingSettings(report_to=report_to).trackers == trackers  # type: ignore[arg-type]


def test_none_beside_a_tracker_is_a_contradiction():
    with pytest.raises(ValidationError, match="report_to names none beside a tracker"):
        TrackingSettings(report_to=["wandb", "none"])


def test_every_tracker_can_be_named():
    assert TrackingSettings(report_to=list(TRACKERS)).trackers == tuple(TRACKERS)  # type: ignore[arg-type]
    assert set(TRACKERS) >= WITH_HISTOGRAMS
