"""Runs side by side as tables."""

from __future__ import annotations

from dataclasses import replace

from luthier.report.comparison import metrics_table, results_table, settings_table
from luthier.report.reported_run import ReportedRun
from luthier.report.run_tables import Table


def cells(table: Table) -> dict[str, list[str]]:
    return {row[0].en: [cell.en for cell in row[1:]] for row in table.rows}


def other(run: ReportedRun) -> ReportedRun:
    settings = {**run.settings, "learning_rate": 3e-4, "output_dir": "elsewhere"}
    del settings["stage"]
    return replace(run, name="other", settings=settings, evals=run.evals[:2], state="stopped")


def test_only_settings_that_differ_are_shown_and_never_the_place(reported: ReportedRun) -> None:
    found = settings_table([reported, other(reported)])
    assert [name.en for name in found.columns] == ["setting", "one", "other"]
    assert cells(found) == {"stage": ["sft", "–"], "learning_rate": ["0.0001", "0.0003"]}
    assert settings_table([reported, replace(reported, name="same")]).rows == []


def test_metrics_at_their_last_and_their_best(reported: ReportedRun) -> None:
    accuracies = [{"step": 1, "eval_token_accuracy": 0.75}, {"step": 2, "eval_token_accuracy": 0.5}]
    third = replace(reported, evals=accuracies)
    found = cells(metrics_table([reported, other(reported), third]))
    assert found["state"] == ["finished", "stopped, can go on", "finished"]
    assert found["steps"] == ["20", "20", "20"]
    assert found["tokens per second"] == ["1,000", "1,000", "1,000"]
    assert found["validation loss, last"] == ["2.5", "2", "–"]
    assert found["validation loss, best"] == ["2", "2", "–"]
    assert found["token accuracy, best"] == ["–", "–", "75.0 %"]
    assert "eval_seconds, last" not in found


def test_runs_that_have_not_begun(reported: ReportedRun) -> None:
    bare = ReportedRun(name="bare", folder="bare", state="running")
    found = cells(metrics_table([bare, bare]))
    assert found["training loss, last"] == ["–", "–"]
    assert found["time"] == ["–", "–"]
    assert found["memory at most"] == ["–", "–"]
    assert results_table([bare, replace(bare, results={"torn.json": None})]) is None


def test_evaluations_side_by_side(reported: ReportedRun) -> None:
    results = {"gsm8k.json": {"metrics": {"exact_match": {"value": 0.5}, "bleu": {"value": 3.0}}}}
    found = results_table([reported, replace(reported, results=results)])
    assert found is not None
    assert cells(found) == {
        "gsm8k: exact_match": ["0.4 (0.35 … 0.45)", "0.5"],
        "gsm8k: bleu": ["–", "3"],
    }
