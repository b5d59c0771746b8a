from __future__ import annotations

import inspect
from pathlib import Path

from luthier.contracts.callback import HOOKS, Callback, RunControl


def test_the_hooks_are_those_of_the_protocol():
    named = [name for name, _ in inspect.getmembers(Callback, inspect.isfunction)]
    assert sorted(name for name in named if name.startswith("on_")) == sorted(HOOKS)


def test_a_stop_is_asked_with_its_reason():
    asked: list[str] = []
    RunControl(Path("out"), {"seed": 1}, asked.append).stop("enough")
    assert asked == ["enough"]
