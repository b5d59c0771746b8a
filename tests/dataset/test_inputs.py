from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from luthier.core.errors import DataError
from luthier.core.hashing import hash_json
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import Source
from luthier.dataset.documents import DOCUMENTS
from luthier.dataset.inputs import describe_inputs, describe_work
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.templates import resolve_template


def key(tokenizer, corpus=None, dataset=None, seed=1):
    work = describe_work(
        CorpusSettings(**(corpus or {})), DatasetSettings(**(dataset or {})), tokenizer, seed
    )
    return hash_json(work)


def test_what_changes_rows_changes_the_key_and_nothing_else_does(load_tiny):
    tokenizer = load_tiny("chatml")
    first = key(tokenizer)
    assert first == key(load_tiny("chatml"))
    for same in (
        {"prepared_dir": "elsewhere"},
        {"overwrite_cache": True},
        {"preprocessing_num_workers": 2},
    ):
        assert key(tokenizer, dataset=same) == first
    assert key(tokenizer, corpus={"train_file": "x.json"}) == first, "its bytes stand for a file"
    others = [
        key(tokenizer, seed=2),
        key(tokenizer, dataset={"cutoff_len": 100}),
        key(tokenizer, dataset={"train_on_prompt": True}),
        key(tokenizer, dataset={"default_system": "x"}),
        key(tokenizer, corpus={"min_answer_chars": 6}),
        key(tokenizer, corpus={"val_size": 0.5}),
        key(load_tiny("llama3"), seed=1) if load_tiny("llama3").chat_template else "none",
        key(resolve_template(load_tiny("chatml"), "lecture")[0]),
    ]
    assert len({first, *others}) == len(others) + 1


def test_a_template_that_writes_the_date_is_prepared_anew_each_day(load_tiny):
    tokenizer = load_tiny("chatml")
    assert "date" not in describe_work(CorpusSettings(), DatasetSettings(), tokenizer, 1)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}"
    assert "date" in describe_work(CorpusSettings(), DatasetSettings(), tokenizer, 1)


def test_rows_of_another_kind_have_another_key(load_tiny):
    tokenizer = load_tiny("chatml")
    work = describe_work(CorpusSettings(), DatasetSettings(), tokenizer, 1, DOCUMENTS)
    assert "template" not in work
    assert hash_json(work) != key(tokenizer)
    tokenizer.chat_template = None  # no conversation can be rendered, and none is
    assert describe_work(CorpusSettings(), DatasetSettings(), tokenizer, 1, DOCUMENTS) == work


def test_a_file_is_known_by_its_bytes(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("a")
    (first,) = describe_inputs([Source("rows", path=path)])
    assert (first["file"], first["bytes"]) == ("rows.jsonl", 1)
    path.write_text("b")
    (second,) = describe_inputs([Source("rows", path=path)])
    assert first["sha256"] != second["sha256"]


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.json: the file can't be read: No such file"):
        describe_inputs([Source("gone", path=tmp_path / "gone.json")])


def test_a_hub_data_set_is_known_by_its_fingerprint(monkeypatch):
    import datasets

    asked = []

    def builder(*args: object, **options: object):
        asked.append((args, options))
        return SimpleNamespace(hash="abc")

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    (found,) = describe_inputs([Source("o/n", hub="o/n", subset="main", folder="f")])
    assert found["fingerprint"] == "abc"
    assert asked == [(("o/n", "main"), {"data_dir": "f"})]


def test_a_hub_data_set_that_cannot_be_found(monkeypatch):
    import datasets

    def refuse(*_args: object, **_options: object):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(DataError, match=r"o/n is no file here, and can't be found on the hub"):
        describe_inputs([Source("o/n", hub="o/n")])


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path):
    pipe = tmp_path / "a.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="this is a pipe or a device, not an ordinary file"):
        describe_inputs([Source("a", path=pipe)])
