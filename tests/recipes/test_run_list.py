"""Runs are filtered and sorted by any fact, setting or metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RunError, SettingsError
from luthier.recipes.run_list import (
    check_names,
    list_runs,
    read_condition,
    select_runs,
    sort_runs,
)


def make_run(folder: Path, hour: int, *, losses: tuple[float, ...] = (), **settings: Any) -> Path:
    folder.mkdir(parents=True)
    sections = {"run": {"stage": "sft", "model_name_or_path": "models/tiny/"} | settings}
    manifest = {
        "started": f"2026-11-24T{hour:02}:00:00+00:00",
        "settings": sections,
        "outcome": {"steps": len(losses), "finished": True, "seconds": 60.0},
    }
    (folder / "run.yaml").write_text(json.dumps(sections))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    metrics = [
        {"kind": "eval", "step": step, "epoch": 0.1 * step, "eval_loss": loss}
        for step, loss in enumerate(losses, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    return folder


@pytest.fixture
def runs_folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "a", 9, learning_rate=1e-4, losses=(2.0, 2.5), max_steps=None)
    make_run(tmp_path / "b", 11, learning_rate=3e-4, stage="dpo", packing=True)
    make_run(tmp_path / "c" / "d", 10, learning_rate=1e-5, losses=(1.5,), lora_target=["q", "v"])
    return tmp_path


def names(runs: list[Any]) -> list[str]:
    return [run.name for run in runs]


def test_the_newest_run_comes_first(runs_folder: Path) -> None:
    runs = list_runs(runs_folder)
    assert names(runs) == ["b", "c/d", "a"]
    assert runs[-1].facts == {
        "name": "a",
        "state": "finished",
        "stage": "sft",
        "model": "tiny",
        "step": 2,
        "num_steps": 2,
        "loss": None,
        "eval_loss": 2.5,
        "best_eval_loss": 2.0,
        "tokens_per_second": None,
        "seconds": 60.0,
        "started": "2026-11-24T09:00:00+00:00",
    }


def test_a_run_that_is_named_itself_has_the_name_of_its_folder(runs_folder: Path) -> None:
    assert names(list_runs(runs_folder / "c" / "d")) == ["d"]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("learning_rate>1e-4", "b"),
        ("learning_rate >= 0.0001", "b a"),
        ("learning_rate<1e-4", "c/d"),
        ("learning_rate=1e-4", "a"),
        ("learning_rate==0.0001", "a"),
        ("learning_rate!=1e-4", "b c/d"),
        ("stage=dpo", "b"),
        ("stage!=dpo", "c/d a"),
        ("packing=true", "b"),
        ("packing=false", ""),
        ("max_steps=null", "a"),
        ("max_steps<5", ""),
        ("eval_loss<=1.5", "c/d"),
        ("best_eval_loss<2.1", "c/d a"),
        ("lora_target=q,v", "c/d"),
        ("started>2026-11-24T09:30", "b c/d"),
        ("stage>rm", "c/d a"),
        ("stage=1", ""),
    ],
)
def test_conditions(runs_folder: Path, condition: str, wanted: str) -> None:
    found = select_runs(list_runs(runs_folder), [read_condition(condition)])
    assert names(found) == wanted.split()


def test_all_conditions_hold_at_once(runs_folder: Path) -> None:
    conditions = [read_condition("stage=sft"), read_condition("eval_loss>2")]
    assert names(select_runs(list_runs(runs_folder), conditions)) == ["a"]


@pytest.mark.parametrize("text", ["learning_rate", "learning_rate>", ">3", "a b=c", ""])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no comparison of a name with a value"):
        read_condition(text)


def test_a_number_is_not_compared_with_a_word(runs_folder: Path) -> None:
    condition = read_condition("learning_rate<fast")
    with pytest.raises(SettingsError, match="learning_rate is a number, and 'fast' is none"):
        select_runs(list_runs(runs_folder), [condition])


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("learning_rate", "c/d a b"),
        ("-learning_rate", "b a c/d"),
        ("eval_loss", "c/d a b"),
        ("-eval_loss", "a c/d b"),
        ("name", "a b c/d"),
    ],
)
def test_sorting_puts_runs_without_the_name_last(runs_folder: Path, by: str, wanted: str) -> None:
    assert names(sort_runs(list_runs(runs_folder), by)) == wanted.split()


def test_a_setting_that_is_a_word_or_a_number_can_be_sorted_by(tmp_path: Path) -> None:
    for number, value in enumerate(["auto", 8, 4]):
        make_run(tmp_path / str(number), 9, train_batch_size=value)
    assert names(sort_runs(list_runs(tmp_path), "train_batch_size")) == ["2", "1", "0"]


def test_a_damaged_run_is_a_row_that_says_so(runs_folder: Path) -> None:
    (runs_folder / "b" / "manifest.json").write_text("{")
    runs = list_runs(runs_folder)
    assert names(runs) == ["c/d", "a", "b"]
    assert "the manifest is damaged" in str(runs[-1].problem)
    assert names(select_runs(runs, [read_condition("stage=sft")])) == ["c/d", "a", "b"]


def test_an_unknown_name_is_answered_with_the_nearest(runs_folder: Path) -> None:
    runs = list_runs(runs_folder)
    check_names(["learning_rate", "eval_loss", "started", "adam_beta1"], runs)
    with pytest.raises(SettingsError, match="lerning_rate is no setting and no metric") as caught:
        check_names(["lerning_rate"], runs)
    assert caught.value.mend == "Did you mean learning_rate?"
    with pytest.raises(SettingsError, match="zzzzzz is no setting") as caught:
        check_names(["zzzzzz"], runs)
    assert caught.value.mend == "Names: `luthier config`, metrics.jsonl."


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such folder"):
        list_runs(tmp_path / "nowhere")
