from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from luthier.corpus.settings import CorpusSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_file": "a", "dataset": "b"}, "train_file and dataset are two names"),
        ({"val_file": "a", "val_size": 0.1}, "val_file and val_size both choose"),
        ({"val_size": 1.5}, "val_size is a share below 1 or a whole number"),
        ({"task_weights": {"a": 1}}, "task_weights needs task_column"),
        ({"task_column": "t", "task_weights": {"a": -1}}, "task_weights can't be negative"),
        ({"on_bad_row": "ignore"}, "'error' or 'skip'"),
        ({"trainfile": "a"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        CorpusSettings(**given)


def test_defaults_keep_all_rows():
    settings = CorpusSettings()
    assert (settings.val_size, settings.max_samples, settings.min_answer_chars) == (0, None, 1)
    assert settings.on_bad_row == "error"
