"""What the tests of the commands share: a console that writes to memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
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


@pytest.fixture
def two_runs(tmp_path: Path) -> list[str]:
    """Two runs of one validation each; the name of one looks like markup."""
    folders = [tmp_path / "one", tmp_path / "[red]two"]
    for at, folder in enumerate(folders):
        folder.mkdir()
        (folder / "run.yaml").write_text(f"schedule:\n  learning_rate: {at}.5\n", "utf-8")
        record = {"kind": "eval", "step": 4, "epoch": 1.0, "eval_loss": 1.25 + at}
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return [str(folder) for folder in folders]
