from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.core.errors import DataError, SettingsError
from luthier.core.hashing import hash_file
from luthier.corpus.folder import KIND, MANIFEST
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
    assert sources[0] == Source("a.json", Path("data/a.json"))
    assert sources[0].label == "data/a.json"
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


def _declared(**entry: object) -> list[Source]:
    return resolve_train(CorpusSettings.model_validate({"sources": [entry]}))


def test_declared_sources(here: Path):
    (source,) = _declared(
        path="data/a.json",
        name="own",
        format="messages",
        columns={"messages": "chat"},
        tags={"user_tag": "customer"},
        weight=3,
        num_samples=5,
        category="support",
    )
    assert source == Source(
        "own",
        Path("data/a.json"),
        format="messages",
        columns={"messages": "chat"},
        tags={"user_tag": "customer"},
        weight=3.0,
        num_samples=5,
        category="support",
    )
    (hub,) = _declared(path="o/n", split="dev", subset="en", folder="f")
    assert hub == Source("o/n", hub="o/n", splits=("dev",), subset="en", folder="f")


def test_a_folder_is_one_source_by_its_name_or_one_for_each_file(here: Path):
    assert [source.key for source in _declared(path="data")] == ["a.json", "b.jsonl"]
    named = _declared(path="data", name="raw", weight=2)
    assert {source.name for source in named} == {"raw"}
    assert [source.key for source in named] == ["raw/a.json", "raw/b.jsonl"]
    assert [source.weight for source in named] == [2, 2]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "data/a.json", "split": "dev"}, "split is for data sets on the hub"),
        ({"path": "data/a.json", "subset": "en"}, "subset is for data sets on the hub"),
        ({"path": "data", "num_samples": 3}, "num_samples counts one file's rows, and these are 2"),
        ({"path": "data", "weight": 3}, "weight needs a name: these are 2 files"),
    ],
)
def test_sources_that_say_too_much(here: Path, entry: dict[str, object], message: str):
    with pytest.raises(SettingsError, match=message):
        _declared(**entry)


def test_two_sources_of_one_name(here: Path):
    entries = [{"path": "data/a.json", "name": "x"}, {"path": "data/b.jsonl", "name": "x"}]
    with pytest.raises(SettingsError, match=r"named 'x': data/a\.json and data/b\.jsonl"):
        resolve_train(CorpusSettings.model_validate({"sources": entries}))


def test_validation_files_have_other_names_than_training_files(here: Path):
    (here / "val").mkdir()
    (here / "val/a.json").write_text("[]")
    settings = CorpusSettings(train_file="data/a.json", val_file="val/a.json")
    assert [source.name for source in resolve_train(settings)] == ["a.json"]
    assert [source.name for source in resolve_val(settings)] == ["val/a.json"]


def test_preference_entries_only_where_any_kind_is_asked_for(here: Path):
    info = {"dpo": {"file_name": "a.json", "ranking": True}}
    (here / "data/dataset_info.json").write_text(json.dumps(info))
    settings = CorpusSettings(dataset="dpo")
    with pytest.raises(DataError, match="'dpo' is preference data"):
        resolve_train(settings)
    (source,) = resolve_train(settings, any_kind=True)
    assert source.columns == {"chosen": "chosen", "rejected": "rejected"}


@pytest.fixture
def prepared(here: Path) -> Path:
    """A prepared corpus with training rows only."""
    folder = here / "out"
    (folder / "train").mkdir(parents=True)
    for name in ("train/part-00000.parquet", "dropped.parquet"):
        (folder / name).write_bytes(b"x")
    part = folder / "train/part-00000.parquet"
    files = {"train/part-00000.parquet": {"sha256": hash_file(part), "bytes": 1}}
    (folder / MANIFEST).write_text(json.dumps({"kind": KIND, "files": files}))
    return folder


@pytest.mark.parametrize("path", ["out", "./out", "out/train", "out/train/part-00000.parquet"])
def test_prepared_corpus(prepared: Path, path: str):
    expected = Source(
        "out/train/part-00000.parquet", Path("out/train/part-00000.parquet"), format="record"
    )
    assert resolve_train(CorpusSettings(train_file=path)) == [expected]
    assert _declared(path=path) == [expected]
    (named,) = _declared(path=path, name="first", format="record", weight=2)
    assert (named.key, named.weight, named.format) == ("first", 2, "record")


def test_prepared_corpus_without_rows_of_a_side(prepared: Path):
    with pytest.raises(DataError, match=r"out: this prepared corpus has no val rows\n.*val_size"):
        resolve_val(CorpusSettings(val_file="out"))
    (prepared / MANIFEST).write_text(json.dumps({"kind": KIND, "files": {}}))
    with pytest.raises(DataError, match="no train rows\n  Prepare it again: its steps left"):
        resolve_train(CorpusSettings(train_file="out"))


@pytest.mark.parametrize("path", [".", "out/dropped.parquet", "*/*.parquet"])
def test_rows_that_were_dropped_are_no_data(prepared: Path, path: str):
    with pytest.raises(DataError, match=r"out is a prepared corpus: .* is no part of its data"):
        resolve_train(CorpusSettings(train_file=path))


def test_a_prepared_corpus_has_its_own_columns(prepared: Path):
    with pytest.raises(SettingsError, match="can't be set for a prepared corpus"):
        _declared(path="out", format="alpaca")
