from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.dataset.settings import DatasetSettings


def test_defaults_are_valid():
    assert DatasetSettings().template == "auto"


@pytest.mark.parametrize(
    "values",
    [
        {"cutoff_len": 0},
        {"min_answer_share": 1.5},
        {"on_long_row": "split"},
        {"preprocessing_num_workers": 0},
        {"cutof_len": 5},
    ],
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        DatasetSettings(**values)


def test_two_masks_at_once_are_refused():
    with pytest.raises(ValidationError, match="train_on_prompt and mask_history contradict"):
        DatasetSettings(train_on_prompt=True, mask_history=True)
