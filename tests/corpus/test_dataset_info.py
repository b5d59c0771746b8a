from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError, SettingsError
from luthier.corpus.dataset_info import read_dataset_info
from luthier.corpus.readers.source import Source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("rows.json", "parts/a.jsonl", "parts/b.jsonl", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")
    return tmp_path


def _info(folder: Path, **entries: Any) -> Path:
    (folder / "dataset_info.json").write_text(json.dumps(entries, indent=1))
    return folder


def test_entries_as_llama_factory_writes_them(folder: Path):
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    _info(
        folder,
        plain={"file_name": "rows.json", "file_sha1": "0"},
        columns={"file_name": "rows.json", "columns": {"prompt": "q", "query": None}},
        turns={"file_name": "rows.json", "formatting": "sharegpt", "tags": tags},
        guessed={"file_name": "rows.json", "columns": {"messages": "m"}, "num_samples": 7},
        openai={"file_name": "rows.json", "formatting": "openai"},
        hub={"hf_hub_url": "o/n", "split": "train_sft", "subset": "en", "folder": "f"},
        parts={"file_name": "parts"},
    )
    names = ["plain", "columns", "turns", "guessed", "openai", "hub", "parts"]
    assert read_dataset_info(names, folder) == [
        Source("plain", folder / "rows.json"),
        Source("columns", folder / "rows.json", format="alpaca", columns={"prompt": "q"}),
        Source("turns", folder / "rows.json", format="sharegpt", tags=tags),
        Source(
            "guessed",
            folder / "rows.json",
            format="sharegpt",
            columns={"messages": "m"},
            num_samples=7,
        ),
        Source("openai", folder / "rows.json", format="sharegpt"),
        Source("hub", hub="o/n", splits=("train_sft",), subset="en", folder="f"),
        Source("parts", folder / "parts/a.jsonl", part="a.jsonl"),
        Source("parts", folder / "parts/b.jsonl", part="b.jsonl"),
    ]


def test_unknown_entry_names_the_nearest(folder: Path):
    _info(folder, identity={"file_name": "rows.json"})
    with pytest.raises(SettingsError, match=r"has no entry 'identiy'\n  Did you mean identity\?"):
        read_dataset_info(["identiy"], folder)


def test_missing_catalogue(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file or folder: .*dataset_info\.json"):
        read_dataset_info(["a"], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {}', "the file is not valid JSON"),
        ('{"a": {}, "a": {}}', "the field a stands 2 times"),
        ("[]", "the file is a list, not an object of entries"),
        ('{\n"a": 5}', r"the entry 'a' is the number 5, not an object"),
    ],
)
def test_damaged_catalogue(tmp_path: Path, text: str, message: str):
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset_info(["a"], tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file_name": "rows.json", "ranking": True}, "'bad' is preference data"),
        (
            {"file_name": "rows.json", "columns": {"chosen": "c", "rejected": "r"}},
            "'bad' is preference data",
        ),
        ({"file_name": "rows.json", "columns": {"images": "i"}}, "'bad' has images, which this"),
        ({"file_name": "rows.json", "columns": {"tools": "t"}}, "'bad' has tools, which this"),
        ({"file_name": "rows.json", "colums": {}}, r"unknown key 'colums'\n  Did you mean columns"),
        ({"file_name": "rows.json", "columns": {"promt": "q"}}, "columns has an unknown key"),
        ({"file_name": "rows.json", "tags": {"role": "q"}}, "tags has an unknown key 'role'"),
        ({"file_name": "rows.json", "tags": ["a"]}, "tags is a list, not an object"),
        ({"file_name": "rows.json", "columns": {"prompt": 5}}, "prompt is the number 5, not text"),
        ({"file_name": "rows.json", "formatting": "alpacca"}, r"'alpacca' is not known\n.*alpaca"),
        ({"file_name": "rows.json", "num_samples": 0}, "num_samples is the number 0, not a whole"),
        ({"file_name": "rows.json", "num_samples": True}, "num_samples is true, not a whole"),
        ({"file_name": "parts", "num_samples": 1}, "'bad' is a folder of 2 files"),
        ({"script_url": "load.py"}, "'bad' names script_url, which luthier does not follow"),
        ({"columns": {}}, "'bad' names neither file_name nor hf_hub_url"),
        ({"file_name": "row.json"}, r"no such file or folder.*\n  Did you mean .*rows\.json"),
        ({"file_name": "notes.md"}, r"notes\.md: files of the kind \.md can't be read"),
        ({"file_name": "../rows.json"}, r"the path '\.\./rows\.json' leads out of the folder"),
    ],
)
def test_entries_that_cannot_be_used(folder: Path, entry: dict[str, Any], message: str):
    _info(folder, good={"file_name": "rows.json"}, bad=entry)
    with pytest.raises(DataError, match=message):
        read_dataset_info(["good", "bad"], folder)


def test_error_has_the_line_of_the_entry(folder: Path):
    _info(folder, good={"file_name": "rows.json"}, bad={"ranking": True})
    with pytest.raises(DataError) as caught:
        read_dataset_info(["bad"], folder)
    assert caught.value.where == f"{folder / 'dataset_info.json'}:5"


def test_link_within_a_named_folder_may_not_lead_out(folder: Path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.json"
    outside.write_text("[]")
    (folder / "parts" / "c.json").symlink_to(outside)
    _info(folder, parts={"file_name": "parts"})
    with pytest.raises(DataError, match="leads out of the folder"):
        read_dataset_info(["parts"], folder)


@pytest.mark.parametrize(
    ("entry", "columns"),
    [
        ({"ranking": True}, {"chosen": "chosen", "rejected": "rejected"}),
        ({"ranking": True, "columns": {"chosen": "c"}}, {"chosen": "c", "rejected": "rejected"}),
        ({"columns": {"kto_tag": "ok"}}, {"kto_tag": "ok"}),
        ({"columns": {"tools": "t", "messages": "m"}}, {"tools": "t", "messages": "m"}),
    ],
)
def test_entries_of_other_stages_where_they_are_asked_for(
    folder: Path, entry: dict[str, Any], columns: dict[str, str]
):
    _info(folder, other={"file_name": "rows.json", **entry})
    (source,) = read_dataset_info(["other"], folder, any_kind=True)
    assert source.columns == columns


def test_pictures_are_refused_whatever_is_asked_for(folder: Path):
    _info(folder, bad={"file_name": "rows.json", "columns": {"images": "i"}})
    with pytest.raises(DataError, match="'bad' has images, which this stage can't use"):
        read_dataset_info(["bad"], folder, any_kind=True)
