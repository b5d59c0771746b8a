"""Runs that are compared: their names, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import RunError, SettingsError
from luthier.recipes.compare import read_runs, write_comparison


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three runs, two of them with the same name."""
    made = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    for at, folder in enumerate(made):
        folder.mkdir(parents=True)
        (folder / "run.yaml").write_text(f"run:\n  seed: {at}\n", encoding="utf-8")
    return made


def test_runs_of_one_name_are_called_by_their_paths(folders: list[Path]) -> None:
    names = [run.name for run in read_runs(folders)]
    assert names == [str(folders[0]), str(folders[1]), "c"]


def test_one_run_is_no_comparison(folders: list[Path]) -> None:
    with pytest.raises(SettingsError, match="two runs or more"):
        read_runs(folders[:1])


def test_the_page_is_written(folders: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    write_comparison(read_runs(folders), page)
    html = page.read_text(encoding="utf-8")
    assert "3 runs" in html
    assert "<code>seed" not in html
    assert "seed" in html


def test_a_page_that_cannot_be_written_is_an_error(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="the page can't be written: File exists"):
        write_comparison(read_runs(folders), tmp_path / "file" / "compare.html")
