"""What the objective's settings accept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.objectives.settings import ObjectiveSettings


def test_no_smoothing_by_default() -> None:
    assert ObjectiveSettings().label_smoothing_factor == 0.0
    assert ObjectiveSettings(label_smoothing_factor=0.1).label_smoothing_factor == 0.1


@pytest.mark.parametrize("value", [-0.1, 1.0, "much"])
def test_smoothing_is_a_share(value: object) -> None:
    with pytest.raises(ValidationError, match="label_smoothing_factor"):
        ObjectiveSettings.model_validate({"label_smoothing_factor": value})
