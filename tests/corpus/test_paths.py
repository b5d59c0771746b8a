from __future__ import annotations

import os
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.paths import expand, files_in, inside, is_pattern, missing_path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the working folder hold data/ with files at two depths, hidden ones and other things."""
    names = ["b.jsonl", "a.json", "sub/c.csv", "sub.jsonl", ".hidden.json", ".git/x.json"]
    for name in [*names, "README.md", "dataset_info.json"]:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("[]")
    monkeypatch.chdir(tmp_path)
    return Path("data")


def test_file_folder_and_pattern(data: Path):
    assert expand("data/a.json") == [data / "a.json"]
    files = [data / name for name in ("a.json", "b.jsonl", "sub/c.csv", "sub.jsonl")]
    assert expand("data") == files
    assert expand("data/*.jsonl") == [data / "b.jsonl", data / "sub.jsonl"]
    assert expand("data/**/*.csv") == [data / "sub/c.csv"]
    assert expand("data/[s]*") == [data / "sub.jsonl"]  # the folder sub is no file


def test_home_is_known(data: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(data.resolve()))
    assert expand("~/a.json") == [data.resolve() / "a.json"]


def test_name_with_brackets_is_a_name_where_it_exists(data: Path):
    (data / "x[1].json").write_text("[]")
    assert not is_pattern("data/x[1].json")
    assert expand("data/x[1].json") == [data / "x[1].json"]


def test_pattern_without_a_match_and_with_other_kinds(data: Path):
    with pytest.raises(DataError, match=r"data/\*\.parquet: no file matches this pattern"):
        expand("data/*.parquet")
    with pytest.raises(DataError, match=r"README\.md: files of the kind \.md can't be read"):
        expand("data/*.md")
    with pytest.raises(DataError, match=r"kind \.md can't be read"):
        expand("data/README.md")


def test_missing_path_names_the_nearest(data: Path):
    with pytest.raises(DataError, match=r"no such file or folder: data/a\.jsn\n.*data/a\.json\?"):
        expand("data/a.jsn")
    with pytest.raises(DataError, match=r"\(there is no dta\)\n  Did you mean data\?"):
        expand("dta/a.json")
    assert "In data there are: .hidden.json, a.json" in str(missing_path(data / "zzzzzzzz"))
    assert str(missing_path(Path("qqqqqqqq"), "info.json:3")).startswith("info.json:3: no such")
    assert f"relative to {Path.cwd()}" in str(missing_path(Path("qqqqqqqq")))


def test_links_that_lead_nowhere_are_named_as_links(data: Path):
    (data / "gone.json").symlink_to("nowhere.json")
    with pytest.raises(DataError, match=r"gone\.json: this is a link to nowhere\.json, which is n"):
        expand("data/gone.json")
    (data / "circle.json").symlink_to("circle.json")
    with pytest.raises(DataError, match=r"circle\.json: this is a link to circle\.json, which"):
        expand("data/circle.json")
    with pytest.raises(DataError, match=r"info:2: this is a link to circle\.json, which is not"):
        inside(data, "circle.json", "info:2")


def test_folders_without_data(data: Path):
    (data / "empty").mkdir()
    with pytest.raises(DataError, match="data/empty: the folder holds no data file"):
        files_in(data / "empty")
    (data / "saved").mkdir()
    (data / "saved" / "data-00000-of-00001.arrow").touch()
    with pytest.raises(DataError, match="this folder was written by save_to_disk"):
        files_in(data / "saved")


def test_folder_that_cannot_be_read(data: Path, monkeypatch):
    def scandir(path: str):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="data: the folder can't be read: Permission denied"):
        files_in(data)


@pytest.mark.parametrize("name", ["../x.json", "/etc/passwd", "sub/../../x", "a\0b", "link/x"])
def test_paths_stay_inside(data: Path, name: str):
    (data / "link").symlink_to("/")
    with pytest.raises(DataError, match=r"info:2: the path .* leads out of the folder data"):
        inside(data, name, "info:2")


def test_folder_whose_name_only_begins_alike_is_outside(data: Path):
    Path("data_other").mkdir()
    with pytest.raises(DataError, match="leads out of the folder"):
        inside(data, "../data_other/x.json", "info:2")


def test_inside_keeps_the_name(data: Path):
    assert inside(data, "sub/../a.json", "") == data / "sub/../a.json"
