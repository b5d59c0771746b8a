"""Which files and classes are callbacks, and what is said of the others before anything is slow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes.callback_file import describe_callbacks, load_callbacks

GOOD = """
class Counter:
    def __init__(self):
        self.steps = 0

    def on_step(self, record, control):
        self.steps += 1

    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]
"""

BAD = {
    "no colon": ("", "mine.py", r"callbacks: mine.py names no class(.|\n)*FILE.py:NAME"),
    "no such class": (GOOD, "{}:Count", r"no class Count\n.*Did you mean Counter\?"),
    "no class at all": ("Counter = 1", "{}:Counter", r"no class Counter\n.*Write a class"),
    "no Python": ("class Counter(:", "{}:Counter", r"mine.py:1: the file is no Python"),
    "raises when run": ("x = 1\ny = 1 / 0", "{}:Counter", r"mine.py:2: .*ZeroDivisionError"),
    "wants arguments": (
        "class A:\n    def __init__(self, size): pass\n    def on_step(self, r, c): pass",
        "{}:A",
        r"mine.py:2: the callback A can't be built: TypeError(.|\n)*without arguments",
    ),
    "raises when built": (
        "class A:\n    def __init__(self):\n        [][0]\n    def on_end(self, p, c): 0",
        "{}:A",
        r"mine.py:3: the callback A can't be built: IndexError",
    ),
    "abstract": (
        "from abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n"
        "    def on_step(self, record, control): ...",
        "{}:A",
        r"mine.py:2: the callback A can't be built: TypeError",
    ),
    "a method of another name": (
        "x = 1\nclass A:\n    def on_evaluate(self, record, control): pass",
        "{}:A",
        r"mine.py:2: A.on_evaluate would never be called\n.*Did you mean on_evaluation\?",
    ),
    "a method of no such name": (
        "class A:\n    def on_xyz(self): pass",
        "{}:A",
        r"A.on_xyz would never be called\n.*There are on_start, ",
    ),
    "no methods": ("class A:\n    pass", "{}:A", r"mine.py:1: A has none of the methods"),
    "half a state": (
        "class A:\n    def on_step(self, r, c): pass\n    def get_state(self): return {}",
        "{}:A",
        r"mine.py:1: A has one of get_state and set_state",
    ),
    "of transformers": (
        "from transformers import TrainerCallback\n\nclass A(TrainerCallback):\n    pass",
        "{}:A",
        r"mine.py:3: A is a callback of transformers' Trainer\n.*on_evaluate is on_evaluation",
    ),
}


@pytest.mark.parametrize(("source", "name", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_no_callback(tmp_path: Path, source: str, name: str, said: str):
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        load_callbacks([name.format(path)])


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"lost.py: the file of a callback can't be read"):
        load_callbacks([f"{tmp_path / 'lost.py'}:Counter"])


def test_one_name_twice(tmp_path: Path):
    with pytest.raises(SettingsError, match="callbacks: two callbacks have one name"):
        load_callbacks([f"{tmp_path / 'a.py'}:Counter", f"{tmp_path / 'b.py'}:Counter"])


def test_a_callback_is_built_and_described(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD, encoding="utf-8")
    (found,) = load_callbacks([f"{path}:Counter"])
    assert found.name == "Counter"
    assert found.hook("on_step") is not None
    assert found.hook("on_log") is None
    assert found.place("on_step") == f"{path}:6"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert describe_callbacks([found]) == [{"name": "Counter", "path": str(path), "sha256": digest}]
    assert load_callbacks([]) == ()
