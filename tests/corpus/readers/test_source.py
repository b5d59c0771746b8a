from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.corpus.readers.source import Source


def test_json_says_all_that_decides_the_rows():
    source = Source("a", path=Path("x/a.json"), format="alpaca", columns={"prompt": "q"})
    found = json.loads(json.dumps(source.as_json()))
    assert found["file"] == "a.json"
    assert found["columns"] == {"prompt": "q"}
    assert found["splits"] is None
    other = Source("a", path=Path("x/a.json"), format="alpaca", columns={"prompt": "p"})
    assert other.as_json() != source.as_json()
    assert Source("o/n", hub="o/n").as_json()["splits"] == ["train"]


def test_source_is_a_file_or_a_hub_name():
    with pytest.raises(AssertionError, match="a file or a hub name"):
        Source("a")
    with pytest.raises(AssertionError, match="a file or a hub name"):
        Source("a", path=Path("a"), hub="o/n")


def test_names_of_files_are_short_and_messages_show_the_path():
    source = Source("x/a.json", path=Path("/data/x/a.json"))
    assert (source.key, source.label) == ("x/a.json", "/data/x/a.json")
    named = Source("web", path=Path("/data/x/a.json"))
    assert (named.key, named.label) == ("web", "web")
    part = Source("web", path=Path("/data/x/a.json"), part="x/a.json")
    assert (part.key, part.label) == ("web/x/a.json", "web/x/a.json")
    assert Source("o/n", hub="o/n").label == "o/n"
