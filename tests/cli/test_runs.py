"""`luthier runs`: one line a run, whatever state it is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import runs
from luthier.cli.runs import cell, read_columns
from luthier.core.errors import SettingsError
from luthier.recipes.run_list import ListedRun


def make_run(folder: Path, hour: int, rate: float, finished: bool | None = True) -> None:
    folder.mkdir(parents=True)
    settings = {
        "run": {"stage": "sft"},
        "model": {"model_name_or_path": "models/tiny"},
        "schedule": {"learning_rate": rate},
        "training": {"num_train_epochs": 2.0, "max_steps": None},
    }
    manifest: dict[str, Any] = {
        "started": f"2026-11-24T{hour:02}:15:00+00:00",
        "settings": settings,
    }
    if finished is not None:
        manifest["outcome"] = {"finished": finished, "steps": 4, "seconds": 61.0}
    metrics = [
        {"kind": "train", "step": 4, "epoch": 1.0, "loss": 2.5, "tokens_per_second": 12345.0},
        {"kind": "eval", "step": 4, "epoch": 1.0, "eval_loss": 1.25},
    ]
    (folder / "run.yaml").write_text(json.dumps(settings))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))


def show(folder: Path, **options: Any) -> None:
    given: dict[str, Any] = {
        "where": (),
        "sort": "-started",
        "columns": None,
        "limit": None,
        "as_json": False,
    }
    runs.run(str(folder), **(given | options))


@pytest.fixture
def runs_folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "one", 8, 1e-4)
    make_run(tmp_path / "two", 9, 2e-4, finished=False)
    make_run(tmp_path / "three", 10, 3e-4, finished=None)
    return tmp_path


def test_each_run_has_its_line(runs_folder: Path, capture: Any) -> None:
    out = capture(runs)
    show(runs_folder)
    head, first, second, third = out.getvalue().splitlines()
    assert head.split()[:6] == ["name", "state", "stage", "model", "step", "loss"]
    assert first.split()[:6] == ["three", "broken", "off", "sft", "tiny", "4/8"]
    assert second.split()[:5] == ["two", "stopped", "sft", "tiny", "4/8"]
    assert third.split() == [
        *("one", "finished", "sft", "tiny", "4/4", "2.5000", "1.2500", "12.3k"),
        *("1", "min", "01", "s", "2026-11-24", "08:15"),
    ]


def test_conditions_order_columns_and_limit(runs_folder: Path, capture: Any) -> None:
    out = capture(runs)
    columns = "name,learning_rate,max_steps"
    show(runs_folder, where=["learning_rate<3e-4"], sort="-learning_rate", columns=columns)
    head, *rows = [line.split() for line in out.getvalue().splitlines()]
    assert head == ["name", "learning_rate", "max_steps"]
    assert rows == [["two", "0.0002", "-"], ["one", "0.0001", "-"]]
    out.truncate(0)
    out.seek(0)
    show(runs_folder, limit=1, columns="name")
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines == ["name", "three", "2 more; --limit shows them."]


def test_a_damaged_run_does_not_end_the_list(runs_folder: Path, capture: Any) -> None:
    (runs_folder / "two" / "manifest.json").write_text("{")
    out = capture(runs)
    show(runs_folder)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("two: ")
    assert lines[-1].endswith("manifest.json: the manifest is damaged")


def test_json_holds_everything_or_the_columns(runs_folder: Path, capture: Any) -> None:
    (runs_folder / "two" / "metrics.jsonl").write_text("{\n")
    out = capture(runs)
    show(runs_folder, as_json=True)
    first, second, damaged = json.loads(out.getvalue())
    assert first["name"] == "three"
    assert second["settings"]["learning_rate"] == 1e-4
    assert second["metrics"]["eval_loss"] == 1.25
    assert "this line is no record" in damaged["problem"]
    out.truncate(0)
    out.seek(0)
    show(runs_folder, as_json=True, columns="learning_rate", where=["name=one"], limit=1)
    assert json.loads(out.getvalue()) == [
        {"folder": str(runs_folder / "one"), "learning_rate": 1e-4},
    ]


def test_nothing_found_is_said(runs_folder: Path, tmp_path: Path, capture: Any) -> None:
    out = capture(runs)
    show(runs_folder, where=["stage=dpo"])
    (tmp_path / "empty").mkdir()
    show(tmp_path / "empty")
    assert out.getvalue().splitlines() == ["No run is like that.", "There is no run here."]


@pytest.mark.parametrize(
    "options", [{"sort": "-los"}, {"columns": "name,los"}, {"where": ["los=1"]}]
)
def test_an_unknown_name_is_refused_wherever_it_stands(
    runs_folder: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match="los is no setting and no metric") as caught:
        show(runs_folder, **options)
    assert caught.value.mend == "Did you mean loss?"


def test_no_column_is_refused() -> None:
    with pytest.raises(SettingsError, match="no column is named"):
        read_columns(" , ")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("packing", True, "true"),
        ("lora_target", ["q", "v"], "q,v"),
        ("eval_seconds", 1.5, "1.5"),
        ("step", 1200, "1,200"),
        ("seed", None, "-"),
    ],
)
def test_a_cell_is_short(name: str, value: Any, shown: str) -> None:
    assert cell(ListedRun(Path("x"), "x", {name: value}), name) == shown
