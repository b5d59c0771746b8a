from __future__ import annotations

from typing import Any

import pytest

from luthier.core.errors import DataError
from luthier.corpus.readers.hub import read_hub
from luthier.corpus.readers.source import Source

datasets = pytest.importorskip("datasets")

_SPLITS = {"train": [{"a": 1}, {"a": 2}], "test": [{"a": 3}]}


@pytest.fixture
def asked(monkeypatch) -> list[Any]:
    """Stand in for the hub: one data set with the splits train and test."""
    calls: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> dict[str, Any]:
        calls.append((arguments, options))
        return _SPLITS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_first_split_that_is_there(asked):
    train = list(read_hub(Source("o/n", hub="o/n", subset="main", folder="de")))
    assert [(str(origin), row) for origin, row in train] == [
        ("o/n row 0", {"a": 1}),
        ("o/n row 1", {"a": 2}),
    ]
    val = list(read_hub(Source("o/n", hub="o/n", splits=("validation", "test"))))
    assert [row for _, row in val] == [{"a": 3}]
    assert asked[0] == (("o/n", "main"), {"data_dir": "de"})


def test_no_such_split(asked):
    with pytest.raises(DataError, match="o/n has no split dev, only train, test"):
        list(read_hub(Source("o/n", hub="o/n", splits=("dev",))))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'o/n' on the Hub (OfflineModeIsEnabled)"),
        datasets.exceptions.DatasetNotFoundError("Dataset 'o/n' doesn't exist"),
        datasets.exceptions.DatasetGenerationError("broken shard"),
        ValueError("BuilderConfig 'x' not found"),
        RuntimeError("Dataset scripts are no longer supported"),
    ],
)
def test_hub_out_of_reach_is_one_clear_error(monkeypatch, error: Exception):
    def load_dataset(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="o/n can't be loaded from the hub: ") as caught:
        list(read_hub(Source("o/n", hub="o/n")))
    assert str(error) in caught.value.problem
    assert caught.value.mend is not None
    assert "check the name and the network" in caught.value.mend
