"""`luthier compare` in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.cli import compare


def test_runs_side_by_side(two_runs: list[str], capture: Any, tmp_path: Path) -> None:
    out = capture(compare)
    compare.run(two_runs, out=None)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["setting", "one", "[red]two"] in lines
    assert ["learning_rate", "0.5", "1.5"] in lines
    assert ["validation", "loss,", "best", "1.25", "2.25"] in lines
    assert list(tmp_path.glob("*.html")) == []


def test_with_evaluations_and_a_page(two_runs: list[str], capture: Any, tmp_path: Path) -> None:
    folder = Path(two_runs[0]) / "evaluations"
    folder.mkdir()
    result = {"metrics": {"bleu": {"value": 20.0, "low": 18.0, "high": 22.0, "n": 5}}}
    (folder / "mine.json").write_text(json.dumps(result), encoding="utf-8")
    out = capture(compare)
    page = tmp_path / "compare.html"
    compare.run([two_runs[0], two_runs[0]], out=str(page))
    text = out.getvalue()
    assert "All settings that they both have are the same" in text
    assert "mine: bleu" in text
    assert "20 (18 … 22)" in text
    assert text.splitlines()[-1] == f"written {page}"
    assert page.is_file()
