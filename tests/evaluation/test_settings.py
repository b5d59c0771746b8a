from __future__ import annotations

import pytest

from luthier.core.errors import SettingsError
from luthier.evaluation.settings import GenerationSettings, generation_settings


def test_values_from_the_command_line_become_settings():
    assert generation_settings(temperature=0.5) == GenerationSettings(temperature=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("max_new_tokens", 0), ("batch_size", 0), ("seed", -1)],
)
def test_a_value_out_of_range_names_the_flag_and_the_value(name, value):
    with pytest.raises(SettingsError, match=f"{name} is {value}: input should be") as caught:
        generation_settings(**{name: value})
    assert caught.value.where == f"--{name}"
    assert str(caught.value.mend).startswith(f"{name}: ")
