"""What the objective's settings accept."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from luthier.objectives.settings import ObjectiveSettings, PreferenceSettings, RewardSettings


def test_no_smoothing_by_default() -> None:
    assert ObjectiveSettings().label_smoothing_factor == 0.0
    assert ObjectiveSettings(label_smoothing_factor=0.1).label_smoothing_factor == 0.1


def test_dft_has_one_right_token() -> None:
    assert ObjectiveSettings(use_dft_loss=True).use_dft_loss
    with pytest.raises(ValidationError, match="is not used by use_dft_loss: true"):
        ObjectiveSettings(use_dft_loss=True, label_smoothing_factor=0.1)


def test_noise_has_a_size() -> None:
    assert ObjectiveSettings(neftune_noise_alpha=5).neftune_noise_alpha == 5.0
    with pytest.raises(ValidationError, match="neftune_noise_alpha"):
        ObjectiveSettings(neftune_noise_alpha=0)


@pytest.mark.parametrize("value", [-0.1, 1.0, "much"])
def test_smoothing_is_a_share(value: object) -> None:
    with pytest.raises(ValidationError, match="label_smoothing_factor"):
        ObjectiveSettings.model_validate({"label_smoothing_factor": value})


def test_plain_dpo_by_default() -> None:
    settings = PreferenceSettings()
    assert (settings.pref_loss, settings.pref_beta) == ("sigmoid", 0.1)
    assert settings.needs_reference
    assert settings.supervised_weight == 0.0
    assert RewardSettings().center_rewards_coefficient == 0.0


@pytest.mark.parametrize(
    ("short", "full"),
    [("exo", "exo_pair"), ("sppo", "sppo_hard"), ("nca", "nca_pair"), ("bco", "bco_pair")],
)
def test_short_names_of_losses(short: str, full: str) -> None:
    smoothing = 0.001 if short == "exo" else 0.0
    values = {"pref_loss": short, "dpo_label_smoothing": smoothing}
    assert PreferenceSettings.model_validate(values).pref_loss == full


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({"pref_loss": "apo_zero"}, True),
        ({"pref_loss": "apo_zero", "reference_free": True}, False),
        ({"pref_loss": "orpo"}, False),
        ({"pref_loss": "simpo"}, False),
        ({"pref_loss": "cpo"}, False),
    ],
)
def test_whether_a_reference_is_needed(values: dict[str, object], needed: bool) -> None:
    assert PreferenceSettings.model_validate(values).needs_reference is needed


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"pref_loss": "kto_pair"}, "pref_loss"),
        ({"pref_loss": 3}, "pref_loss"),
        ({"pref_beta": 0.0}, "pref_beta"),
        ({"pref_ftx": -1.0}, "pref_ftx"),
        ({"dpo_label_smoothing": 0.5}, "dpo_label_smoothing"),
        ({"ld_alpha": 1.1}, "ld_alpha"),
        ({"pref_loss": "simpo", "simpo_gamma": -0.1}, "simpo_gamma"),
        (
            {"pref_loss": "hinge", "dpo_label_smoothing": 0.1},
            "dpo_label_smoothing is not used by pref_loss: hinge",
        ),
        ({"pref_loss": "exo_pair"}, "exo_pair needs a dpo_label_smoothing"),
        ({"pref_loss": "orpo", "ld_alpha": 0.0}, "ld_alpha is not used by pref_loss: orpo"),
        (
            {"pref_loss": "simpo", "reference_free": True},
            "reference_free is not used by pref_loss: simpo",
        ),
        ({"simpo_gamma": 1.0}, "simpo_gamma is not used by pref_loss: sigmoid"),
        (
            {"pref_loss": "orpo", "cpo_alpha": 0.5},
            "cpo_alpha is not used by pref_loss: orpo",
        ),
        ({"kto_chosen_weight": 0.0, "kto_rejected_weight": 0.0}, "can't both be 0"),
    ],
)
def test_preferences_that_can_not_be(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        PreferenceSettings.model_validate(values)


def test_centring_is_not_negative() -> None:
    with pytest.raises(ValidationError, match="center_rewards_coefficient"):
        RewardSettings(center_rewards_coefficient=-0.1)


def test_settings_load_no_torch() -> None:
    code = "import sys, luthier.objectives.settings; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
