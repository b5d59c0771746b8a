"""What the checkpoint settings accept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.checkpoints.settings import CheckpointSettings


@pytest.mark.parametrize("value", [True, False, "output/run/checkpoints/step-000100"])
def test_resume_is_a_flag_or_a_path(value: bool | str) -> None:
    settings = CheckpointSettings(resume_from_checkpoint=value)
    assert settings.resume_from_checkpoint is value


def test_defaults_keep_everything_and_overwrite_nothing() -> None:
    settings = CheckpointSettings()
    assert settings.save_total_limit is None
    assert settings.resume_from_checkpoint is False
    assert settings.overwrite_output_dir is False
    assert settings.save_in_background is False
    assert settings.on_full_disk == "stop"


def test_a_full_disk_stops_or_pauses() -> None:
    assert CheckpointSettings(on_full_disk="pause").on_full_disk == "pause"
    with pytest.raises(ValidationError, match="'stop' or 'pause'"):
        CheckpointSettings.model_validate({"on_full_disk": "delete"})


@pytest.mark.parametrize("value", [0, -1, "two"])
def test_a_limit_keeps_at_least_one(value: object) -> None:
    with pytest.raises(ValidationError, match="save_total_limit"):
        CheckpointSettings.model_validate({"save_total_limit": value})
