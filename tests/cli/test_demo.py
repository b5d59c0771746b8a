"""`luthier demo`: before and after, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import demo
from luthier.contracts.training import Progress
from luthier.core.exit_codes import STOPPED
from luthier.recipes.demo import DemoResult, Question
from luthier.recipes.train import TrainResult


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put an outcome in the demo's place; return what the demo was asked for."""
    given: dict[str, Any] = {}

    def put(result: DemoResult | TrainResult) -> dict[str, Any]:
        def run_demo(output_dir: str, model: str | None, screen: Any, stop: Any) -> Any:
            given.update(output_dir=output_dir, model=model, requested=stop.requested)
            return result

        monkeypatch.setattr("luthier.recipes.demo.run_demo", run_demo)
        monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)
        return given

    return put


def training(folder: Path, step: int = 3) -> TrainResult:
    records = [("eval", 0), ("train", 0), ("train", 1), ("train", 2)]
    lines = [json.dumps({"kind": kind, "step": i, "loss": 3.0 - i}) for kind, i in records]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TrainResult(folder, Progress(step=step, num_steps=3), (), 61.0)


def test_answers_side_by_side_and_counted(outcome: Any, capture: Any, tmp_path: Path):
    questions = (
        Question("en", "How many strings?", "Thirteen.", ("thirteen",)),
        Question("zh", "几根弦？", "十三根。", ("十三",)),
    )
    result = DemoResult(
        questions, ("[red]Six.", "六根。"), ("Thirteen. ", "六根。"), training(tmp_path), 75.0
    )
    out = capture(demo)
    given = outcome(result)
    demo.run(output_dir="out", model=None)
    assert given == {"output_dir": "out", "model": None, "requested": False}
    text = out.getvalue()
    assert "Training loss over 3 steps" in text
    assert "   3.000 │█" in text
    assert "   1.000 │" in text
    (row,) = [line for line in text.splitlines() if "How many strings?" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "How many strings?",
        "[red]Six.",
        "Thirteen.",
    ]
    scores = {line.split()[0]: line.split()[1:] for line in text.splitlines() if " of " in line}
    assert scores["English"] == "0 of 1 (0.0 %) 1 of 1 (100.0 %)".split()  # noqa: SIM905
    assert scores["Chinese"] == "0 of 1 (0.0 %) 0 of 1 (0.0 %)".split()  # noqa: SIM905
    assert scores["all"] == "0 of 2 (0.0 %) 1 of 2 (50.0 %)".split()  # noqa: SIM905
    assert f"luthier chat {tmp_path}" in text
    assert "before and after took 1 min 15 s in all" in text


def test_of_many_questions_a_spread_is_shown(outcome: Any, capture: Any, tmp_path: Path):
    questions = tuple(Question("en", f"Question {i:02}?", "", ("x",)) for i in range(40))
    answers = ("x",) * 40
    out = capture(demo)
    outcome(DemoResult(questions, answers, answers, training(tmp_path), 1.0))
    demo.run(output_dir="out", model=None)
    shown = [i for i in range(40) if f"Question {i:02}?" in out.getvalue()]
    assert shown == [0, 5, 10, 15, 20, 25, 30, 35]
    assert "40 of 40 (100.0 %)" in out.getvalue()


def test_a_stopped_demo_can_go_on(outcome: Any, capture: Any, tmp_path: Path):
    out = capture(demo)
    given = outcome(training(tmp_path, step=2))
    with pytest.raises(SystemExit) as end:
        demo.run(output_dir="my out", model="m")
    assert end.value.code == STOPPED
    assert given["model"] == "m"
    command = "luthier train 'my out/run.yaml' --resume_from_checkpoint"
    assert command in out.getvalue()
