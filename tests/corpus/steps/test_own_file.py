from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.core.hashing import hash_text
from luthier.core.own_code import place_of
from luthier.corpus.steps.own_file import (
    OwnFile,
    find_function,
    first_parameter,
    read_own_file,
    read_settings,
)


def _file(folder: Path, text: str) -> OwnFile:
    path = folder / "steps.py"
    path.write_text(text, encoding="utf-8")
    return read_own_file(path)


def test_functions_of_the_file_that_take_a_row_or_columns(tmp_path: Path):
    text = """
from textwrap import dedent as row

def keep(row): ...
def work(columns, *, much=1): ...
def inner(text): ...
def nothing(): ...
def _hidden(row): ...
"""
    file = _file(tmp_path, text)
    assert list(file.functions) == ["keep", "work"]
    assert [first_parameter(function) for function in file.functions.values()] == ["row", "columns"]
    assert place_of(file.functions["work"], file.path) == f"{file.path}:5"


def test_a_file_is_run_once_and_again_when_it_has_changed(tmp_path: Path):
    count = "import sys\nsys.own_runs = getattr(sys, 'own_runs', 0) + 1\ndef keep(row): return {}\n"
    try:
        first = _file(tmp_path, count.format(True))
        assert _file(tmp_path, count.format(True)) is first
        assert vars(sys)["own_runs"] == 1
        again = _file(tmp_path, count.format(False))
    finally:
        del sys.own_runs  # pyright: ignore[reportAttributeAccessIssue]
    assert again.sha256 != first.sha256
    assert again.functions["keep"]({}) is False
    assert [path.name for path in tmp_path.iterdir()] == ["steps.py"], "no bytecode is left"


def test_dataclasses_with_written_annotations_work(tmp_path: Path):
    text = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Bounds:
    low: int = 1

def keep(row, least: int = Bounds().low): ...
"""
    assert read_settings(_file(tmp_path, text), "keep", {"least": 3}) == {"least": 3}


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SettingsError, match="own steps can't be read: No such file") as caught:
        read_own_file(tmp_path / "none.py")
    assert "none.py" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef keep(row:\n", r"steps\.py:2: the file is no Python: "),
        ("x = 1\n\nx / 0\n", r"steps\.py:3: the file can't be run: ZeroDivisionError"),
        ("import beside_it\n", r"steps\.py:1: the file can't be run: ModuleNotFoundError: No mod"),
        ("import json\njson.loads('{')\n", r"steps\.py:2: the file can't be run: JSONDecodeError"),
        ("x = '\0'\n", r"steps\.py.*: the file .*null bytes"),
    ],
)
def test_a_file_that_can_not_be_run(tmp_path: Path, text: str, message: str):
    (tmp_path / "beside_it.py").touch()
    with pytest.raises(SettingsError) as caught:
        _file(tmp_path, text)
    assert caught.match(message)
    module = f"luthier_own_{hash_text(str(tmp_path / 'steps.py'))[:12]}"
    assert module not in sys.modules


def test_a_function_that_is_not_there(tmp_path: Path):
    file = _file(tmp_path, "def no_poems(row): ...\ndef inner(text): ...\n")
    with pytest.raises(SettingsError, match="there is no step no_pomes") as caught:
        find_function(file, "no_pomes")
    assert "Did you mean no_poems?" in str(caught.value)
    with pytest.raises(SettingsError, match="no function of that name takes row or columns first"):
        find_function(file, "inner")
    with pytest.raises(SettingsError, match="Define one"):
        find_function(_file(tmp_path, ""), "no_poems")


SETTINGS = """
def keep(
    row, lines: int = 4, words=(), strict=False, share=0.5, *, name: str | None = None, x=None
): ...
"""


def test_settings_are_given_the_types_of_their_parameters(tmp_path: Path):
    file = _file(tmp_path, SETTINGS)
    given = {"lines": 5, "words": ["a", "b"], "strict": True, "share": 1, "name": "n", "x": [1]}
    read = read_settings(file, "keep", given)
    assert read == {**given, "words": ("a", "b")}
    assert isinstance(read["share"], float)
    assert read_settings(file, "keep", {}) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lines": "many"}, "step_settings.keep.lines: 'many' can't be used: Input should be a"),
        ({"lines": 0.5}, "0.5 can't be used"),
        ({"strict": 7}, "7 can't be used"),
        ({"lnes": 1}, "step_settings.keep: the step keep has no setting lnes"),
        ({"row": 1}, "the step keep has no setting row"),
    ],
)
def test_settings_that_no_parameter_takes(tmp_path: Path, given: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message) as caught:
        read_settings(_file(tmp_path, SETTINGS), "keep", given)
    if "lnes" in given:
        assert "Did you mean lines?" in str(caught.value)
    if "lines" in given:
        assert "The default is 4." in str(caught.value)


@pytest.mark.parametrize("parameters", ["least", "*more", "least=1, **more"])
def test_every_parameter_after_the_first_has_a_default(tmp_path: Path, parameters: str):
    file = _file(tmp_path, f"\ndef keep(row, {parameters}): ...\n")
    with pytest.raises(
        SettingsError, match=r"steps\.py:2: the parameter .* of keep has no default"
    ):
        read_settings(file, "keep", {})


def test_a_function_without_settings(tmp_path: Path):
    with pytest.raises(SettingsError, match="has no setting lines\n  It takes no settings"):
        read_settings(_file(tmp_path, "def keep(row): ...\n"), "keep", {"lines": 1})


def test_annotations_that_can_not_be_read_or_used(tmp_path: Path):
    file = _file(tmp_path, "def keep(row, least: 'Nothing' = 1): ...\n")
    # Not read as luthier's own modules are, where an annotation is a text.
    assert file.functions["keep"].__annotations__ == {"least": "Nothing"}
    with pytest.raises(SettingsError, match="annotations of keep can't be read: name 'Nothing'"):
        read_settings(file, "keep", {})
    file = _file(tmp_path, "class Odd: ...\ndef keep(row, odd: Odd = Odd()): ...\n")
    assert read_settings(file, "keep", {}) == {}
    with pytest.raises(SettingsError, match=r"no setting can be of the type .*Odd"):
        read_settings(file, "keep", {"odd": 1})


def test_the_place_of_an_error_is_in_the_file(tmp_path: Path):
    file = _file(tmp_path, "import json\ndef keep(row):\n    return json.loads(row)\n")
    with pytest.raises(ValueError, match="Expecting") as caught:
        file.functions["keep"]("x")
    assert place_of(file.functions["keep"], file.path, caught.value) == f"{file.path}:3"
