from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import SettingsError
from luthier.corpus.readers.source import Source
from luthier.corpus.source_names import refuse_equal_names, short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["raw/a.jsonl", "raw/b.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["x/a.jsonl", "y/a.jsonl", "y/b.jsonl"], ["x/a.jsonl", "y/a.jsonl", "b.jsonl"]),
        (["x/d/a.json", "y/d/a.json"], ["x/d/a.json", "y/d/a.json"]),
        (["./x/../a.json"], ["a.json"]),
        # One path is the end of the other.
        (["/d/a.json", "/x/d/a.json"], ["/d/a.json", "x/d/a.json"]),
        (["a.json", "a.json"], ["a.json", "a.json"]),
        ([], []),
    ],
)
def test_names_are_the_shortest_ends_that_differ(paths: list[str], names: list[str]):
    assert short_names([Path(path) for path in paths]) == names


def test_names_do_not_depend_on_where_the_folder_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    relative = [Path("x/a.json"), Path("y/a.json")]
    moved = [Path("/elsewhere", path) for path in relative]
    absolute = [tmp_path / path for path in relative]
    assert short_names(relative) == short_names(absolute) == short_names(moved)


def test_names_that_are_taken_already_are_not_given_again():
    assert short_names([Path("val/a.json")], [Path("train/a.json")]) == ["val/a.json"]
    assert short_names([Path("a.json")], [Path("a.json")]) == ["a.json"]


def test_two_sources_of_one_name():
    one, other = Source("a", path=Path("x/a.json")), Source("a", path=Path("y/a.json"))
    with pytest.raises(SettingsError, match=r"named 'a': x/a\.json and y/a\.json\n.*`name` under"):
        refuse_equal_names([one, Source("b", hub="o/n"), other])
    hub = Source("a", hub="o/n", subset="en")
    with pytest.raises(SettingsError, match=r"x/a\.json and o/n en"):
        refuse_equal_names([one, hub])
    parts = [Source("a", path=one.path, part="1"), Source("a", path=other.path, part="2")]
    refuse_equal_names(parts)
