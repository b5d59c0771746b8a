from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.core.errors import DataError, SettingsError
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import Source, input_files, resolve_train, resolve_val


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data/a.json", "data/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")
    info = {"one": {"file_name": "a.json"}, "two": {"file_name": "b.jsonl"}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "train_file", ["data", "data/*.json*", ["data/a.json", "data/b.jsonl"], "./data"]
)
def test_files_by_path_pattern_folder_and_list(here: Path, train_file):
    if train_file == "data/*.json*":
        (here / "data/dataset_info.json").unlink()
    sources = resolve_train(CorpusSettings(train_file=train_file))
    assert input_files(sources) == [Path("data/a.json"), Path("data/b.jsonl")]
    assert sources[0] == Source("data/a.json", Path("data/a.json"))
    assert resolve_val(CorpusSettings(train_file=train_file)) == []


@pytest.mark.parametrize("dataset", ["one,two", " one , two,", ["one", "two"], ["one,two"]])
def test_entries_of_the_catalogue(here: Path, dataset):
    sources = resolve_train(CorpusSettings(dataset=dataset))
    assert [source.name for source in sources] == ["one", "two"]
    assert input_files(sources) == [Path("data/a.json"), Path("data/b.jsonl")]


def test_hub_names(here: Path):
    train = resolve_train(CorpusSettings(train_file=["tatsu-lab/alpaca", "data/a.json"]))
    assert train[0] == Source("tatsu-lab/alpaca", hub="tatsu-lab/alpaca", splits=("train",))
    assert input_files(train) == [Path("data/a.json")]
    val = resolve_val(CorpusSettings(val_file="openai/gsm8k"))
    assert val == [Source("openai/gsm8k", hub="openai/gsm8k", splits=("validation", "test"))]


@pytest.mark.parametrize("name", ["data/gone", "other/gone.json", "gone", "a/b/c", "/no/where"])
def test_what_is_no_hub_name_is_a_missing_path(here: Path, name: str):
    with pytest.raises(DataError, match="no such file or folder"):
        resolve_train(CorpusSettings(train_file=name))


@pytest.mark.parametrize("given", [{}, {"train_file": []}, {"dataset": " , "}])
def test_no_training_data(here: Path, given):
    with pytest.raises(SettingsError, match="there is no training data"):
        resolve_train(CorpusSettings(**given))


def test_file_named_twice(here: Path):
    for given in (["data/a.json", "./data/../data/a.json"], ["data", "data/b.jsonl"]):
        with pytest.raises(SettingsError, match="is named twice: its rows would count twice"):
            resolve_train(CorpusSettings(train_file=given))
    with pytest.raises(SettingsError, match="o/n is named twice"):
        resolve_val(CorpusSettings(val_file=["o/n", "o/n"]))
