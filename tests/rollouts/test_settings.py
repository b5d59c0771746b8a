from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from luthier.rollouts.settings import RolloutSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reward_pattern": "(", "reward_funcs": ["format"]}, "no regular expression"),
        ({"reward_funcs": ["length"], "reward_weights": [1, 2]}, "2 numbers for 1 reward_funcs"),
        ({"reward_funcs": ["length", "length"]}, "names a function twice"),
        ({"reward_funcs": ["format"]}, "go together"),
        ({"reward_pattern": "a"}, "go together"),
        ({"num_generations": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        RolloutSettings(**values)


def test_what_goes_together():
    settings = RolloutSettings(
        reward_funcs=["format", "length"], reward_pattern="<a>.*</a>", reward_max_chars=9
    )
    assert settings.reward_weights is None
