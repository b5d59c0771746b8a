"""From a run's settings to prepared rows, and the tokenizer that made them."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.core.errors import DataError, ModelError, SettingsError
from luthier.recipes.data import prepare_data


def test_rows_tokenizer_and_stop_tokens(small_run: Any, recorder: Any):
    data = prepare_data(small_run.config(), recorder)
    assert recorder.prepared is data.prepared
    assert len(data.prepared.train) == 13
    assert data.prepared.val is not None
    assert len(data.prepared.val) == 3
    assert data.stop_token_ids == (data.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    row = data.prepared.train[0]
    assert data.tokenizer.decode(row["input_ids"]).startswith("<|im_start|>user\nName 0 colours.")
    taught = [token for token in row["labels"] if token != -100]
    assert data.tokenizer.decode(taught) == "Red,<|im_end|>"
    assert recorder.work[0][0] == "reading"


def test_the_named_template_is_the_one_that_is_trained(small_run: Any, recorder: Any):
    data = prepare_data(small_run.config("--template", "alpaca"), recorder)
    text = data.tokenizer.decode(data.prepared.train[0]["input_ids"])
    assert "### Response:" in text
    assert "<|im_start|>" not in text


def test_the_runs_seed_draws_the_split(small_run: Any, recorder: Any):
    def origins(seed: str) -> list[str]:
        config = small_run.config("--seed", seed, "--val_size", "4", val_file=None)
        return prepare_data(config, recorder).prepared.train["input_ids"][:]

    assert len(origins("1")) == 9
    assert origins("1") == origins("1")
    assert origins("1") != origins("2")


def test_no_training_data(small_run: Any, recorder: Any):
    message = r"^train_file: there is no training data\n  Set train_file .*--train_file"
    with pytest.raises(SettingsError, match=message):
        prepare_data(small_run.config(train_file=None), recorder)


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--train_file", "gone.json"], DataError, r"gone\.json"),
        (["--template", "lama3"], SettingsError, r"lama3(.|\n)*llama3"),
        (["--dataset", "gone", "--train_file", "null"], DataError, r"dataset_info\.json"),
    ],
)
def test_what_can_not_be_prepared(
    small_run: Any, recorder: Any, flags: list[str], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        prepare_data(small_run.config(*flags), recorder)


def test_a_model_without_tokenizer(small_run: Any, recorder: Any):
    for file in small_run.model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        prepare_data(small_run.config(), recorder)
