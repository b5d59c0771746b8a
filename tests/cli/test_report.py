"""`luthier report` in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.cli import report
from luthier.core.errors import RunError


def test_a_report_is_written_and_named(two_runs: list[str], capture: Any, tmp_path: Path) -> None:
    out = capture(report)
    report.run(two_runs[0], out=None)
    report.run(two_runs[1], out=str(tmp_path / "page.html"))
    assert out.getvalue().splitlines() == [
        f"written {two_runs[0]}/report.html",
        f"written {tmp_path}/page.html",
    ]
    assert (tmp_path / "page.html").is_file()


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        report.run(str(tmp_path), out=None)
