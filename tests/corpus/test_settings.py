from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from luthier.corpus.settings import CorpusSettings, PreparationSettings, SourceSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_file": "a", "dataset": "b"}, "train_file and dataset are two names"),
        ({"train_file": "a", "sources": []}, "sources takes the place of train_file and dataset"),
        ({"dataset": "a", "sources": []}, "sources takes the place of train_file and dataset"),
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "path"),
        ({"path": "a", "weight": 0}, "greater than 0"),
        ({"path": "a", "num_samples": 0}, "greater than 0"),
        ({"path": "a", "format": "csv"}, "'auto', 'alpaca'"),
        ({"path": "a", "columns": {"promt": "q"}}, "'prompt', 'query'"),
        ({"path": "a", "tags": {"role": "q"}}, "'role_tag'"),
        ({"path": "a", "category": "x", "columns": {"category": "y"}}, "both give the category"),
        ({"path": "a", "format": "record", "columns": {"text": "y"}}, "has its own columns"),
        ({"path": "a", "tags": {"role_tag": "r"}}, "need format: messages or sharegpt"),
        ({"path": "a", "columns": {"text": "t", "prompt": "p"}}, "have no prompt"),
        ({"path": "a", "columns": {"messages": "t", "query": "p"}}, "have no query"),
        ({"path": "a", "format": "alpaca", "columns": {"messages": "m"}}, "have no messages"),
        ({"path": "a", "format": "sharegpt", "columns": {"history": "m"}}, "have no history"),
    ],
)
def test_sources_that_contradict_themselves(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        CorpusSettings.model_validate({"sources": [given]})


def test_sources_as_they_are_written_in_yaml():
    given = {"path": "raw/chat", "format": "messages", "tags": {"user_tag": "customer"}}
    settings = CorpusSettings.model_validate({"sources": [{**given, "weight": 3}]})
    assert settings.sources == [
        SourceSettings(
            path="raw/chat", format="messages", tags={"user_tag": "customer"}, weight=3.0
        )
    ]


def test_preparation_does_nothing_unless_told():
    settings = PreparationSettings()
    assert (settings.steps, settings.step_file, settings.step_settings) == ([], None, {})
    assert settings.corpus_dir == "prepared"
