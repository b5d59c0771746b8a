"""`luthier report` and `luthier compare` in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import report
from luthier.core.errors import RunError


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    folders = [tmp_path / "one", tmp_path / "[red]two"]
    for at, folder in enumerate(folders):
        folder.mkdir()
        (folder / "run.yaml").write_text(f"schedule:\n  learning_rate: {at}.5\n", "utf-8")
        record = {"kind": "eval", "step": 4, "epoch": 1.0, "eval_loss": 1.25 + at}
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return [str(folder) for folder in folders]


def test_a_report_is_written_and_named(runs: list[str], capture: Any, tmp_path: Path) -> None:
    out = capture(report)
    report.run(runs[0], out=None)
    report.run(runs[1], out=str(tmp_path / "page.html"))
    assert out.getvalue().splitlines() == [
        f"written {runs[0]}/report.html",
        f"written {tmp_path}/page.html",
    ]
    assert (tmp_path / "page.html").is_file()


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        report.run(str(tmp_path), out=None)


def test_runs_side_by_side(runs: list[str], capture: Any, tmp_path: Path) -> None:
    out = capture(report)
    report.compare(runs, out=None)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["setting", "one", "[red]two"] in lines
    assert ["learning_rate", "0.5", "1.5"] in lines
    assert ["validation", "loss,", "best", "1.25", "2.25"] in lines
    assert list(tmp_path.glob("*.html")) == []


def test_with_evaluations_and_a_page(runs: list[str], capture: Any, tmp_path: Path) -> None:
    folder = Path(runs[0]) / "evaluations"
    folder.mkdir()
    result = {"metrics": {"bleu": {"value": 20.0, "low": 18.0, "high": 22.0, "n": 5}}}
    (folder / "mine.json").write_text(json.dumps(result), encoding="utf-8")
    out = capture(report)
    page = tmp_path / "compare.html"
    report.compare([runs[0], runs[0]], out=str(page))
    text = out.getvalue()
    assert "All settings that they both have are the same" in text
    assert "mine: bleu" in text
    assert "20 (18 … 22)" in text
    assert text.splitlines()[-1] == f"written {page}"
    assert page.is_file()
