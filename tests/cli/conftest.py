"""What the tests of the commands share: a console that writes to memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import ModuleType

import pytest
from rich.console import Console

Capture = Callable[..., io.StringIO]


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Capture:
    """Put a console of 100 columns into a module, and return what it writes to."""

    def put(module: ModuleType, name: str = "console", *, terminal: bool = False) -> io.StringIO:
        file = io.StringIO()
        console = Console(
            file=file, width=100, highlight=False, force_terminal=terminal, color_system=None
        )
        monkeypatch.setattr(module, name, console)
        return file

    return put
