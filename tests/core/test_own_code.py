from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.core.own_code import place_of, read_own_code, run_own_code


def run(folder: Path, text: str) -> ModuleType:
    path = (folder / "own.py").resolve()
    path.write_text(text, encoding="utf-8")
    return run_own_code(path, read_own_code(path, "the file"))


def test_a_file_is_run_once_and_again_when_it_has_changed(tmp_path: Path):
    first = run(tmp_path, "def answer():\n    return 1\n")
    assert run(tmp_path, "def answer():\n    return 1\n") is first
    assert run(tmp_path, "def answer():\n    return 2\n").answer() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"], "no bytecode is left"


def test_where_an_error_went_through_the_file_last(tmp_path: Path):
    module: Any = run(
        tmp_path, "def outer(x):\n    return inner(x)\ndef inner(x):\n    return 1 / x"
    )
    path = (tmp_path / "own.py").resolve()
    assert place_of(module.inner, path) == f"{path}:3"
    with pytest.raises(ZeroDivisionError) as caught:
        module.outer(0)
    assert place_of(module.outer, path, caught.value) == f"{path}:4"


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"none\.py: the rules can't be read: No such file"):
        read_own_code(tmp_path / "none.py", "the rules")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef keep(row:\n", r"own\.py:2: the file is no Python: "),
        ("x = 1\n\nx / 0\n", r"own\.py:3: the file can't be run: ZeroDivisionError"),
        ("import beside_it\n", r"own\.py:1: the file can't be run: ModuleNotFoundError"),
    ],
)
def test_a_file_that_can_not_be_run(tmp_path: Path, text: str, message: str):
    with pytest.raises(SettingsError, match=message):
        run(tmp_path, text)
